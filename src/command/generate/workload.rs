//! Kustody inside the cluster: namespaces, deployment, service.

use super::{defaults::AGENT_NAMESPACE, rbac::ACCOUNT};
use crate::core::action::NAMESPACE;
use serde_json::{Value, json};

/// Where the webhook, the gateway and the probes listen inside the pod.
const WEBHOOK_PORT: u16 = 9443;
const GATEWAY_PORT: u16 = 8443;
const HEALTH_PORT: u16 = 8080;

/// The least `kustody serve` needs; everything else has a default that fits these manifests.
const CONFIGURATION: &str = "\
# Every field: docs/install.md. Recordings belong in object storage: set store.url to s3://bucket/prefix.
cluster:
  name: kubernetes
gateway:
  url: https://kustody.kustody-system.svc:6443
store:
  url: file:///var/lib/kustody/store
spool:
  dir: /var/lib/kustody/spool
log:
  format: json
";

pub(super) fn namespaces() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {
                "app.kubernetes.io/name": "kustody", "pod-security.kubernetes.io/enforce": "restricted"
            }}
        }),
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": AGENT_NAMESPACE, "labels": {"app.kubernetes.io/part-of": "kustody"}}
        }),
    ]
}

pub(super) fn service() -> Vec<Value> {
    vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kustody", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "kustody"}},
        "spec": {
            "selector": {"app.kubernetes.io/name": "kustody"},
            "ports": [
                {"name": "webhook", "port": 443, "targetPort": "webhook", "protocol": "TCP"},
                {"name": "gateway", "port": 6443, "targetPort": "gateway", "protocol": "TCP"}
            ]
        }
    })]
}

pub(super) fn deployment() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "kustody-recordings", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "kustody"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "kustody-config", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "kustody"}},
            "data": {"kustody.yaml": CONFIGURATION}
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "kustody", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "kustody"}},
            "spec": {
                "replicas": 1,
                // The spool belongs to one pod at a time.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {"app.kubernetes.io/name": "kustody"}},
                "template": {
                    "metadata": {"labels": {"app.kubernetes.io/name": "kustody"}},
                    "spec": pod()
                }
            }
        }),
    ]
}

fn pod() -> Value {
    json!({
        "serviceAccountName": ACCOUNT,
        // Sessions get their grace (30 s), then recordings are sealed and shipped.
        "terminationGracePeriodSeconds": 75,
        "priorityClassName": "system-cluster-critical",
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"}
        },
        "containers": [container()],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "kustody-recordings"}},
            {"name": "config", "configMap": {"name": "kustody-config"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}
        ]
    })
}

fn container() -> Value {
    let probe =
        |path: &str| json!({"httpGet": {"path": path, "port": "health"}, "periodSeconds": 5, "timeoutSeconds": 2});
    json!({
        "name": "kustody",
        "image": concat!("kustody:", env!("CARGO_PKG_VERSION")),
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve", "--config", "/etc/kustody/kustody.yaml"],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [
            {"name": "webhook", "containerPort": WEBHOOK_PORT},
            {"name": "gateway", "containerPort": GATEWAY_PORT},
            {"name": "health", "containerPort": HEALTH_PORT}
        ],
        "readinessProbe": probe("/readyz"),
        "livenessProbe": probe("/livez"),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/kustody"},
            {"name": "config", "mountPath": "/etc/kustody", "readOnly": true},
            {"name": "tmp", "mountPath": "/tmp"}
        ]
    })
}
