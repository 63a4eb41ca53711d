//! An alert's name or `runbook_url`, in any of the styles in use, → the section that is about it.

use super::AppState;
use crate::retrieval::{AlertPlace, Filters, url};
use crate::runbook::anchor::decoded;

/// What an address or a name may stand for, best first.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    /// A page of ours, and the anchor in it.
    Page(String, Option<String>),
    /// An alert, as its source spells it or in lower case.
    Alert(String),
}

pub(super) enum Resolved {
    /// An address on this service.
    Known(String),
    /// The name that was looked for, and up to three pages that come near, with what they are called.
    Unknown(String, Vec<(String, String)>),
}

const NEAREST: usize = 3;

impl AppState {
    /// Exact address → names in front matter, file names and headings → what search finds for the words of the name.
    pub(super) async fn resolve(&self, reference: &str) -> Resolved {
        let library = self.retriever.library();
        let wanted = wanted(reference);
        for wanted in &wanted {
            match wanted {
                Wanted::Page(id, anchor) => {
                    let Some(runbook) = library.get(id) else {
                        continue;
                    };
                    let page = url(&runbook.id);
                    let anchor = anchor
                        .as_ref()
                        .filter(|anchor| runbook.section(anchor).is_some());
                    return Resolved::Known(match anchor {
                        Some(anchor) => format!("{page}#{anchor}"),
                        None => page,
                    });
                }
                Wanted::Alert(name) => {
                    if let AlertPlace::Known(address) = self.retriever.alert(name) {
                        return Resolved::Known(address);
                    }
                    if let Some(runbook) = library.named(name) {
                        return Resolved::Known(url(&runbook.id));
                    }
                }
            }
        }
        let name = wanted
            .iter()
            .find_map(|wanted| match wanted {
                Wanted::Alert(name) => Some(name.clone()),
                Wanted::Page(..) => None,
            })
            .unwrap_or_else(|| reference.trim().to_owned());
        let nearest = self.nearest(&name).await;
        Resolved::Unknown(name, nearest)
    }

    /// What the words of the name say, one section a page; then the names that are spelt most alike.
    async fn nearest(&self, name: &str) -> Vec<(String, String)> {
        let (retriever, words) = (self.retriever.clone(), words(name));
        let search = move || retriever.search(&words, 10, &Filters::default());
        let found = self.compute(search).await;
        let mut nearest: Vec<(String, String)> = Vec::new();
        let mut add = |title: String, address: String| {
            let page = |address: &str| address.split('#').next().map(str::to_owned);
            let is_new = nearest
                .iter()
                .all(|(_, known)| page(known) != page(&address));
            if is_new && nearest.len() < NEAREST {
                nearest.push((title, address));
            }
        };
        if let Ok(Ok(found)) = found {
            for result in found.results.into_iter().filter(|_| found.answerable) {
                let address = format!("{}#{}", result.runbook.url, result.section.anchor);
                let heading = result.section.heading_path.last().cloned();
                let heading = heading.filter(|heading| *heading != result.runbook.title);
                let title = match heading {
                    Some(heading) => format!("{} › {heading}", result.runbook.title),
                    None => result.runbook.title,
                };
                add(title, address);
            }
        }
        if let AlertPlace::Unknown(names) = self.retriever.alert(name) {
            for (name, address) in names {
                add(name, address);
            }
        }
        nearest
    }
}

/// `KubePodCrashLooping` → `Kube Pod Crash Looping`, which search understands.
fn words(name: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.push(if c.is_alphanumeric() { c } else { ' ' });
        before = c;
    }
    words
}

fn wanted(reference: &str) -> Vec<Wanted> {
    let reference = reference.trim();
    let (path, fragment) = match reference.split_once('#') {
        Some((path, fragment)) => (path, Some(decoded(fragment))),
        None => (reference, None),
    };
    let path = path.split('?').next().unwrap_or_default();
    let is_address = path.contains("://") || path.starts_with('/');
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => path,
    };
    let path = decoded(path);
    let path = path.trim_matches('/');

    let mut wanted = Vec::new();
    // An alert may be called anything, also `HTTP 4xx/5xx` or `Queue #1`.
    if !is_address && reference.contains(['/', '#', '?', '%']) {
        wanted.push(Wanted::Alert(reference.to_owned()));
    }
    // `…/runbooks/ID#anchor`: ours, under whatever prefix a proxy gives it.
    let ours = path
        .strip_prefix("runbooks/")
        .map(|id| (0, id))
        .or_else(|| {
            let at = path.find("/runbooks/")?;
            Some((at, &path[at + "/runbooks/".len()..]))
        });
    if is_address && let Some((_, id)) = ours {
        let id = id.strip_suffix(".md").unwrap_or(id);
        // A query may stand behind the anchor too: that is how some templates write it.
        let anchor = fragment.as_ref().map(|anchor| {
            let end = anchor.find('?').unwrap_or(anchor.len());
            anchor[..end].to_owned()
        });
        wanted.push(Wanted::Page(id.to_owned(), anchor));
    }
    // `…/r/NAME`: ours as well.
    // `…/runbook.md#alert-name-x`: the mixins of Kubernetes and of etcd.
    if let Some(fragment) = &fragment {
        let name = fragment.strip_prefix("alert-name-").unwrap_or(fragment);
        let name = name.split('?').next().unwrap_or_default();
        if !name.is_empty() {
            wanted.push(Wanted::Alert(name.to_owned()));
        }
    }
    // `…/runbooks/COMPONENT/NAME/`, `…/alerts/OPERATOR/NAME.md`, `…/docs/runbooks/NAME.md`
    let last = path.rsplit('/').next().unwrap_or_default();
    let last = [".md", ".html", ".adoc"]
        .iter()
        .find_map(|suffix| last.strip_suffix(suffix))
        .unwrap_or(last);
    let of_path = Wanted::Alert(last.to_owned());
    if !last.is_empty() && !wanted.contains(&of_path) {
        wanted.push(of_path);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str) -> Wanted {
        Wanted::Alert(name.into())
    }

    #[test]
    fn every_style_of_address_names_its_alert() {
        for (reference, expected) in [
            ("CoreDNSDown", vec![alert("CoreDNSDown")]),
            (
                "https://github.com/kubernetes-monitoring/kubernetes-mixin/tree/master/runbook.md#alert-name-kubeproxydown",
                vec![alert("kubeproxydown"), alert("runbook")],
            ),
            (
                "https://runbooks.prometheus-operator.dev/runbooks/node/nodenetworkreceiveerrs/",
                vec![
                    Wanted::Page("node/nodenetworkreceiveerrs".into(), None),
                    alert("nodenetworkreceiveerrs"),
                ],
            ),
            (
                "https://github.com/openshift/runbooks/blob/master/alerts/cluster-dns-operator/CoreDNSErrorsHigh.md",
                vec![
                    Wanted::Page(
                        "blob/master/alerts/cluster-dns-operator/CoreDNSErrorsHigh".into(),
                        None,
                    ),
                    alert("CoreDNSErrorsHigh"),
                ],
            ),
            (
                "https://kubevirt.io/monitoring/docs/runbooks/VirtAPIDown.md",
                vec![
                    Wanted::Page("VirtAPIDown".into(), None),
                    alert("VirtAPIDown"),
                ],
            ),
            (
                "http://assistant:8080/ops/runbooks/tcp/queue?namespace=shop#diagnosis",
                vec![
                    Wanted::Page("tcp/queue".into(), Some("diagnosis".into())),
                    alert("diagnosis"),
                    alert("queue"),
                ],
            ),
            (
                "/runbooks/dns%2Dslow#impact?alert=x",
                vec![
                    Wanted::Page("dns-slow".into(), Some("impact".into())),
                    alert("impact"),
                    alert("dns-slow"),
                ],
            ),
            ("", vec![]),
            ("https://x", vec![]),
            ("a%zz%é", vec![alert("a%zz%é")]),
            (
                "HTTP 4xx/5xx ratio",
                vec![alert("HTTP 4xx/5xx ratio"), alert("5xx ratio")],
            ),
            (
                "Queue #1 is full",
                vec![
                    alert("Queue #1 is full"),
                    alert("1 is full"),
                    alert("Queue "),
                ],
            ),
        ] {
            assert_eq!(wanted(reference), expected, "{reference}");
        }
    }

    #[test]
    fn a_name_is_taken_apart_into_words() {
        assert_eq!(words("KubeProxyDown"), "Kube Proxy Down");
        assert_eq!(words("CoreDNSErrorsHigh"), "Core DNSErrors High");
    }
}
