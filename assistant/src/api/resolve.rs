//! An alert's name or `runbook_url`, in any of the styles in use, → the section that is about it.

use std::path::Path;

use super::AppState;
use super::links::query_string;
use crate::retrieval::{AlertPlace, Filters, url};
use crate::runbook::anchor::decoded;
use crate::runbook::{Format, Library};

/// What an address or a name may stand for, best first.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    /// A page of ours, and the anchor in it.
    Page(String, Option<String>),
    /// The section of this anchor on the page of an alert.
    Section(String, String),
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
                    let section = anchor
                        .as_ref()
                        .and_then(|anchor| runbook.section_of_link(anchor));
                    return Resolved::Known(match section {
                        Some(section) => format!("{page}#{}", section.anchor),
                        None => page,
                    });
                }
                Wanted::Section(name, anchor) => {
                    let page = self.place_of(&library, name);
                    let page = page.map(|place| place.split('#').next().unwrap_or("").to_owned());
                    let runbook = page.and_then(|page| {
                        let mut runbooks = library.runbooks.iter();
                        runbooks.find(|runbook| url(&runbook.id) == page)
                    });
                    if let Some(runbook) = runbook
                        && let Some(section) = runbook.section_of_link(anchor)
                    {
                        let page = url(&runbook.id);
                        return Resolved::Known(format!("{page}#{}", section.anchor));
                    }
                }
                Wanted::Alert(name) => {
                    if let Some(place) = self.place_of(&library, name) {
                        return Resolved::Known(place);
                    }
                }
            }
        }
        let name = called(reference, &wanted);
        let nearest = self.nearest(&name).await;
        Resolved::Unknown(name, nearest)
    }

    /// Where an alert is treated, or else the page whose file has its name.
    fn place_of(&self, library: &Library, name: &str) -> Option<String> {
        if let AlertPlace::Known(address) = self.retriever.alert(name) {
            return Some(address);
        }
        library.named(name).map(|runbook| url(&runbook.id))
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

/// The name of what is not known: where the address has one, its anchor may be any heading's.
fn called(reference: &str, wanted: &[Wanted]) -> String {
    let mut names = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Alert(name) => Some(name.as_str()),
        Wanted::Page(..) | Wanted::Section(..) => None,
    });
    let name = match is_address(reference) && !reference.contains("#alert-name-") {
        true => names.next_back(),
        false => names.next(),
    };
    name.unwrap_or(reference.trim()).to_owned()
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

/// What a page takes from its query, each with its other name.
const PARAMETERS: [(&str, &str); 5] = [
    ("namespace", "ns"),
    ("workload", ""),
    ("pod", ""),
    ("time", "at"),
    ("window", ""),
];

/// The query for the page that an address means: what stands beside the address, and of what stands in its own query that
/// which a page takes. What stands beside it counts more.
pub(super) fn parameters(reference: &str, beside: &str) -> String {
    let (path, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    // Behind the anchor too: that is how some templates write it.
    let within: Vec<(String, String)> = [path, fragment]
        .iter()
        .filter_map(|part| part.split_once('?'))
        .flat_map(|(_, query)| query.split('&'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(&value.replace('+', " "))))
        .collect();
    let mut query = beside.to_owned();
    for (name, alias) in PARAMETERS {
        let is_it = |other: &str| other == name || (!alias.is_empty() && other == alias);
        let mut beside = beside.split('&').filter_map(|pair| pair.split_once('='));
        if beside.any(|(other, _)| is_it(&decoded(other))) {
            continue;
        }
        let value = within.iter().find(|(other, _)| is_it(other));
        let pair = value.map_or_else(String::new, |(_, value)| {
            query_string(&[(name, value.as_str())])
        });
        if let Some(pair) = pair.strip_prefix('?') {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(pair);
        }
    }
    query
}

fn wanted(reference: &str) -> Vec<Wanted> {
    let reference = reference.trim();
    let (path, fragment) = match reference.split_once('#') {
        Some((path, fragment)) => (path, Some(decoded(fragment))),
        None => (reference, None),
    };
    let path = path.split('?').next().unwrap_or_default();
    let is_address = is_address(path);
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
    // A query may stand behind the anchor too.
    let anchor = fragment.as_deref().map(|fragment| {
        let end = fragment.find('?').unwrap_or(fragment.len());
        fragment[..end].to_owned()
    });
    let anchor = anchor.filter(|anchor| !anchor.is_empty());
    if is_address && let Some((_, id)) = ours {
        let id = id.strip_suffix(".md").unwrap_or(id);
        wanted.push(Wanted::Page(id.to_owned(), anchor.clone()));
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    let last = without_extension(last);
    if let Some(anchor) = anchor {
        // `…/blob/main/NAME.md#heading`: the same heading of our page for it.
        if is_address && !last.is_empty() {
            wanted.push(Wanted::Section(last.to_owned(), anchor.clone()));
        }
        // `…/runbook.md#alert-name-x`: the mixins of Kubernetes and of etcd.
        let name = anchor.strip_prefix("alert-name-").unwrap_or(&anchor);
        wanted.push(Wanted::Alert(name.to_owned()));
    }
    // `…/r/NAME`: ours as well. `…/runbooks/COMPONENT/NAME/`, `…/alerts/OPERATOR/NAME.md`, `…/docs/runbooks/NAME.md`
    let of_path = Wanted::Alert(last.to_owned());
    if !last.is_empty() && !wanted.contains(&of_path) {
        wanted.push(of_path);
    }
    wanted
}

fn is_address(reference: &str) -> bool {
    let reference = reference.trim_start();
    let path = reference.split(['#', '?']).next().unwrap_or_default();
    path.contains("://") || path.starts_with('/')
}

/// An alert's name may have a dot in it: only what a page's name ends with is cut off.
fn without_extension(name: &str) -> &str {
    match Format::of(Path::new(name)) {
        Some(_) => name.rsplit_once('.').map_or(name, |(stem, _)| stem),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str) -> Wanted {
        Wanted::Alert(name.into())
    }

    fn section(name: &str, anchor: &str) -> Wanted {
        Wanted::Section(name.into(), anchor.into())
    }

    #[test]
    fn what_an_address_is_asked_with_goes_on_to_the_page() {
        for (reference, beside, expected) in [
            ("CoreDNSDown", "", ""),
            ("CoreDNSDown", "namespace=a", "namespace=a"),
            (
                "https://x/y.md?namespace=shop&workload=cart&time=2026-11-20T03:10:00Z&plain=1#z",
                "",
                "namespace=shop&workload=cart&time=2026-11-20T03%3A10%3A00Z",
            ),
            (
                "/runbooks/y#z?ns=shop&at=5&window=",
                "",
                "namespace=shop&time=5",
            ),
            (
                "https://x/y?namespace=shop&workload=a%26b%20c+d%0A",
                "ns=other&x",
                "ns=other&x&workload=a%26b%20c%20d%0A",
            ),
            ("https://x/y?namespace&=&?", "", ""),
        ] {
            assert_eq!(parameters(reference, beside), expected, "{reference}");
        }
    }

    #[test]
    fn every_style_of_address_names_its_alert() {
        for (reference, expected) in [
            ("CoreDNSDown", vec![alert("CoreDNSDown")]),
            (
                "https://github.com/kubernetes-monitoring/kubernetes-mixin/tree/master/runbook.md#alert-name-kubeproxydown",
                vec![
                    section("runbook", "alert-name-kubeproxydown"),
                    alert("kubeproxydown"),
                    alert("runbook"),
                ],
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
                    section("queue", "diagnosis"),
                    alert("diagnosis"),
                    alert("queue"),
                ],
            ),
            (
                "/runbooks/dns%2Dslow#impact?alert=x",
                vec![
                    Wanted::Page("dns-slow".into(), Some("impact".into())),
                    section("dns-slow", "impact"),
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
    fn what_is_not_known_is_called_by_its_name() {
        for (reference, name) in [
            ("https://x/alerts/FooDown.md#mitigation", "FooDown"),
            ("https://x/runbook.md#alert-name-foodown", "foodown"),
            ("https://x/#foodown", "foodown"),
            ("Queue #1 full", "Queue #1 full"),
            (" FooDown ", "FooDown"),
        ] {
            assert_eq!(called(reference, &wanted(reference)), name, "{reference}");
        }
    }

    #[test]
    fn a_name_is_taken_apart_into_words() {
        assert_eq!(words("KubeProxyDown"), "Kube Proxy Down");
        assert_eq!(words("CoreDNSErrorsHigh"), "Core DNSErrors High");
    }
}
