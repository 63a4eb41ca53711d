//! An API server as real ones behave, faults included: lists in pages, watches with bookmarks,
//! field selectors, metadata only, a history that is cut off.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// Nobody waits longer for anything to happen.
const TICK: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    revision: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    history: Vec<Change>,
    /// Older history is gone.
    compacted: u64,
    faults: Faults,
    requests: Vec<Request>,
    /// Watches that are older end.
    cuts: u64,
    bookmarks: u64,
    closed: bool,
}

struct Change {
    revision: u64,
    resource: String,
    before: Option<Value>,
    after: Option<Value>,
}

#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// HTTP status by resource, for its watches alone by `watch` and its name, or for all by `*`.
    pub(crate) refused: HashMap<String, u16>,
    /// Before each answer.
    pub(crate) slow: Duration,
    /// A watch that is cut ends in the middle of a line.
    pub(crate) cut_in_a_line: bool,
    /// Connections are closed without an answer.
    pub(crate) down: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) resource: String,
    pub(crate) parameters: HashMap<String, String>,
    pub(crate) metadata_only: bool,
}

impl Request {
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.parameter("watch") == "true"
    }
}

pub(crate) struct FakeApi {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl FakeApi {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                revision: 100,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let served = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = served.clone();
                if shared.lock().closed {
                    return;
                }
                thread::spawn(move || _ = serve(&stream.unwrap(), &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        })
        .to_string()
    }

    /// Creates or changes an object.
    pub(crate) fn apply(&self, object: &Value) {
        let mut object = object.clone();
        self.change(|state| {
            object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            let key = key(&object);
            let before = state.objects.insert(key.clone(), object.clone());
            (key.0, before, Some(object))
        });
    }

    pub(crate) fn delete(&self, object: &Value) {
        self.change(|state| {
            let key = key(object);
            let mut before = state.objects.remove(&key).unwrap();
            before["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            (key.0, Some(before), None)
        });
    }

    fn change(&self, change: impl FnOnce(&mut State) -> (String, Option<Value>, Option<Value>)) {
        let mut state = self.shared.lock();
        state.revision += 1;
        let (resource, before, after) = change(&mut state);
        let revision = state.revision;
        state.history.push(Change {
            revision,
            resource,
            before,
            after,
        });
        self.shared.changed.notify_all();
    }

    /// As etcd does every five minutes: who watches from before must list again.
    pub(crate) fn compact(&self) {
        let mut state = self.shared.lock();
        state.history.clear();
        state.compacted = state.revision;
    }

    /// Tells every watch how far it is.
    pub(crate) fn bookmark(&self) {
        self.shared.lock().bookmarks += 1;
        self.shared.changed.notify_all();
        thread::sleep(TICK * 5);
    }

    pub(crate) fn cut_watches(&self) {
        self.shared.lock().cuts += 1;
        self.shared.changed.notify_all();
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        // Lets the listener see it.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn key(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let meta = &object["metadata"];
    (kind + "s", text(&meta["namespace"]), text(&meta["name"]))
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut metadata_only = false;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            metadata_only |= header.contains("as=PartialObjectMetadata");
            if header.trim().is_empty() {
                break;
            }
        }
        let request = parse(&target, metadata_only);
        let faults = {
            let mut state = shared.lock();
            if state.closed {
                return Ok(());
            }
            state.requests.push(request.clone());
            state.faults.clone()
        };
        if faults.down {
            return Ok(());
        }
        thread::sleep(faults.slow);
        let verb = if request.is_watch() { "watch" } else { "list" };
        let by_verb = format!("{verb} {}", request.resource);
        let refused = [request.resource.as_str(), &by_verb, "*"]
            .into_iter()
            .find_map(|what| faults.refused.get(what));
        if let Some(&code) = refused {
            let reason = if code == 401 {
                "Unauthorized"
            } else {
                "Forbidden"
            };
            answer(stream, code, &status(code, reason))?;
        } else if request.is_watch() {
            return watch(stream, shared, &request);
        } else {
            let (code, body) = list(&shared.lock(), &request);
            answer(stream, code, &body)?;
        }
    }
}

fn parse(target: &str, metadata_only: bool) -> Request {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameters = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), decode(value)))
    });
    Request {
        resource: path.rsplit('/').next().unwrap_or_default().to_owned(),
        parameters: parameters.collect(),
        metadata_only,
    }
}

fn decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = u8::from_str_radix(&part[..2], 16).unwrap();
        decoded.push(char::from(code));
        decoded.push_str(&part[2..]);
    }
    decoded
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the fake says {reason}"), "reason": reason, "code": code})
}

fn answer(mut stream: &TcpStream, code: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// `continue` is the revision of the first page and the last key of this one.
fn list(state: &State, request: &Request) -> (u16, Value) {
    let (revision, after) = match request.parameter("continue").split_once('|') {
        Some((revision, after)) => (revision.parse().unwrap(), after.to_owned()),
        None => (state.revision, String::new()),
    };
    if revision < state.compacted {
        return (410, status(410, "Expired"));
    }
    let limit = request.parameter("limit").parse().unwrap_or(usize::MAX);
    let mut items = Vec::new();
    let mut last = String::new();
    let mut is_more = false;
    for ((resource, namespace, name), object) in &state.objects {
        let key = format!("{namespace}/{name}");
        if *resource != request.resource || key <= after || !is_selected(object, request) {
            continue;
        }
        if items.len() == limit {
            is_more = true;
            break;
        }
        last = key;
        items.push(shown(object, request));
    }
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if is_more {
        meta["continue"] = json!(format!("{revision}|{last}"));
    }
    let kind = if request.metadata_only {
        "PartialObjectMetadataList"
    } else {
        "List"
    };
    let list = json!({"kind": kind, "apiVersion": "v1", "metadata": meta, "items": items});
    (200, list)
}

fn shown(object: &Value, request: &Request) -> Value {
    match request.metadata_only {
        true => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"]}),
        false => object.clone(),
    }
}

fn is_selected(object: &Value, request: &Request) -> bool {
    let selector = request.parameter("fieldSelector");
    selector
        .split(',')
        .filter(|part| !part.is_empty())
        .all(|part| {
            let (path, value, wanted) = match part.split_once("!=") {
                Some((path, value)) => (path, value, false),
                None => {
                    let (path, value) = part.split_once('=').unwrap();
                    (path, value, true)
                }
            };
            let pointer = format!("/{}", path.replace('.', "/"));
            let found = object.pointer(&pointer).and_then(Value::as_str);
            (found.unwrap_or_default() == value) == wanted
        })
}

fn watch(mut stream: &TcpStream, shared: &Shared, request: &Request) -> std::io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    let send = |event: &str, object: &Value| -> std::io::Result<()> {
        let line = format!("{}\n", json!({"type": event, "object": object}));
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        (&*stream).write_all(chunk.as_bytes())
    };
    let mut seen: u64 = request.parameter("resourceVersion").parse().unwrap_or(0);
    let mut state = shared.lock();
    let (cuts, mut bookmarks) = (state.cuts, state.bookmarks);
    loop {
        if seen < state.compacted && state.history.is_empty() && cuts == state.cuts {
            // Only a watch that begins; one that goes on has seen all there was.
            send("ERROR", &status(410, "Expired"))?;
            return Ok(());
        }
        let changes: Vec<(&str, Value)> = (state.history.iter())
            .filter(|change| change.revision > seen && change.resource == request.resource)
            .filter_map(|change| event(change, request))
            .collect();
        seen = seen.max(state.revision);
        let bookmark = (state.bookmarks != bookmarks).then_some(state.revision);
        bookmarks = state.bookmarks;
        drop(state);
        for (kind, object) in changes {
            send(kind, &object)?;
        }
        if let Some(revision) = bookmark
            && request.parameter("allowWatchBookmarks") == "true"
        {
            let meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
            send(
                "BOOKMARK",
                &json!({"kind": "X", "apiVersion": "v1", "metadata": meta,
                "spec": {"containers": null}, "status": {}}),
            )?;
        }
        state = shared.lock();
        if state.closed || state.cuts != cuts {
            if state.faults.cut_in_a_line {
                stream.write_all(b"40\r\n{\"type\":\"MODIFIED\",\"object\":{\"kin")?;
            } else {
                stream.write_all(b"0\r\n\r\n")?;
            }
            return Ok(());
        }
        state = shared.changed.wait_timeout(state, TICK).unwrap().0;
    }
}

/// What a watch with a selector is told: an object that is not selected any more is deleted.
fn event(change: &Change, request: &Request) -> Option<(&'static str, Value)> {
    let selected = |object: &Option<Value>| {
        let object = object
            .as_ref()
            .filter(|object| is_selected(object, request));
        object.map(|object| shown(object, request))
    };
    match (selected(&change.before), selected(&change.after)) {
        (None, Some(after)) => Some(("ADDED", after)),
        (Some(_), Some(after)) => Some(("MODIFIED", after)),
        (Some(before), None) => Some(("DELETED", before)),
        (None, None) => None,
    }
}
