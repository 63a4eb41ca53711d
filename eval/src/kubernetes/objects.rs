//! Objects as a server of version 1.36 gives them, shortened to what varies.

use serde_json::{Value, json};

/// A running pod of a Deployment.
pub(crate) fn pod(name: &str, node: &str, address: &str, deployment: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("0f6ab4c5-3c6c-4a53-b5b1-{name}"), "generation": 1,
            "creationTimestamp": "2026-11-20T03:10:00Z", "generateName": format!("{deployment}-7d9c-"),
            "labels": {"app": deployment, "pod-template-hash": "7d9c", "app.kubernetes.io/name": deployment},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-7d9c"),
                "uid": "5b1c", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "time": "2026-11-20T03:10:02Z", "subresource": "status",
                "fieldsV1": {"f:status": {"f:podIPs": {".": {}, "k:{\"ip\":\"10.0.0.1\"}": {".": {}, "f:ip": {}}}}}}],
        },
        "spec": {
            "nodeName": node, "serviceAccountName": "default", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "containers": [{"name": "app", "image": "registry.k8s.io/pause:3.10", "imagePullPolicy": "IfNotPresent",
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}, "terminationMessagePath": "/dev/termination-log",
                "volumeMounts": [{"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "hostIP": "192.0.2.1", "podIP": address, "podIPs": [{"ip": address}],
            "observedGeneration": 1, "qosClass": "Burstable", "startTime": "2026-11-20T03:10:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-20T03:10:02Z"}],
            "containerStatuses": [{"name": "app", "ready": true, "started": true, "restartCount": 0,
                "image": "registry.k8s.io/pause:3.10", "imageID": "registry.k8s.io/pause@sha256:ee65",
                "containerID": format!("containerd://{name}"), "state": {"running": {"startedAt": "2026-11-20T03:10:02Z"}}}],
        },
    })
}

pub(crate) fn service(name: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}], "selector": {"app": name}},
        "status": {"loadBalancer": {}}})
}

pub(crate) fn endpoint_slice(service: &str, address: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": format!("{service}-x7k2p"),
            "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]})
}

pub(crate) fn node(name: &str, zone: &str, address: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {}, "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "images": [{"names": ["registry.k8s.io/pause:3.10"], "sizeBytes": 320_368}]}})
}

pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"}})
}

/// A pod of a Job, and the Job that a CronJob made.
pub(crate) fn pod_of_job(job: &str, cron_job: &str, address: &str) -> [Value; 2] {
    let mut pod = pod(&format!("{job}-x"), "b", address, "unused");
    pod["metadata"]["labels"] = json!({"job-name": job});
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": "6", "controller": true}]);
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job, "uid": "7", "controller": true}]);
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"namespace": "shop", "name": job, "ownerReferences": owner}, "spec": {}, "status": {}});
    [pod, job]
}
