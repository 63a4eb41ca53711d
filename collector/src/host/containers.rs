//! Names of containers, from the state that their runtimes keep on disk.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where the runtimes keep their state.
#[derive(Clone, Debug)]
pub struct StatePaths {
    pub docker: PathBuf,
    pub podman: PathBuf,
    pub containerd: PathBuf,
}

impl Default for StatePaths {
    fn default() -> Self {
        Self {
            docker: "/var/lib/docker/containers".into(),
            podman: "/var/lib/containers/storage/overlay-containers/containers.json".into(),
            containerd: "/run/containerd/io.containerd.runtime.v2.task".into(),
        }
    }
}

/// The name a person gave to the container with this id, if a runtime of this host knows it.
pub fn name(paths: &StatePaths, id: &str) -> Option<String> {
    docker(&paths.docker, id)
        .or_else(|| podman(&paths.podman, id))
        .or_else(|| containerd(&paths.containerd, id))
        .filter(|name| !name.is_empty())
}

fn docker(containers: &Path, id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct State {
        #[serde(rename = "Name")]
        name: String,
    }
    let state: State = read(&containers.join(id).join("config.v2.json"))?;
    Some(state.name.trim_start_matches('/').to_owned())
}

fn podman(containers: &Path, id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Container {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let containers: Vec<Container> = read(containers)?;
    let container = containers
        .into_iter()
        .find(|container| container.id == id)?;
    container.names.into_iter().next()
}

/// nerdctl and the kubelet say it in an annotation of the OCI bundle.
fn containerd(tasks: &Path, id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Bundle {
        #[serde(default)]
        annotations: std::collections::BTreeMap<String, String>,
    }
    fs::read_dir(tasks).ok()?.flatten().find_map(|namespace| {
        let bundle: Bundle = read(&namespace.path().join(id).join("config.json"))?;
        ["nerdctl/name", "io.kubernetes.cri.container-name"]
            .iter()
            .find_map(|&key| bundle.annotations.get(key).cloned())
    })
}

/// A file that is missing or that we do not understand names nothing.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[test]
fn each_runtime_tells_the_name_in_its_own_way() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "docker/aa/config.v2.json",
        r#"{"ID": "aa", "Name": "/web"}"#,
    );
    write(
        "podman.json",
        r#"[{"id": "bb", "names": ["db"]}, {"id": "ee"}]"#,
    );
    write(
        "containerd/default/cc/config.json",
        r#"{"annotations": {"nerdctl/name": "cache"}}"#,
    );
    write("docker/dd/config.v2.json", "not JSON");
    let paths = StatePaths {
        docker: root.join("docker"),
        podman: root.join("podman.json"),
        containerd: root.join("containerd"),
    };
    for (id, expected) in [
        ("aa", Some("web")),
        ("bb", Some("db")),
        ("cc", Some("cache")),
        ("dd", None),
        ("ee", None),
        ("ff", None),
    ] {
        assert_eq!(name(&paths, id).as_deref(), expected, "{id}");
    }
}
