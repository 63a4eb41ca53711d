//! How the signals are: what `/readyz` and `runwire-collector status` show.

use serde::Serialize;

use crate::flow_store::FlowStoreHealth;
use crate::k8s::KubernetesHealth;
use crate::kernel::{HookStatus, Refusal};

/// The state of the collector as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    pub status: Status,
    pub signals: Vec<SignalHealth>,
    /// `None` if Kubernetes is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesHealth>,
    /// `None` if flows are not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_store: Option<FlowStoreHealth>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing was collected yet.
    #[default]
    Starting,
    Ready,
    /// Some hooks are not attached, Kubernetes does not answer, or the flow store cannot be
    /// written; all else goes on.
    Degraded,
    /// No hook could be attached at all.
    Unavailable,
}

#[derive(Clone, Debug, Serialize)]
pub struct SignalHealth {
    pub name: &'static str,
    /// `on`, `off` (by configuration), `unavailable` (by the kernel) or `failed` (while it ran).
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub hooks: Vec<HookHealth>,
}

#[derive(Clone, Debug, Serialize)]
pub struct HookHealth {
    pub hook: &'static str,
    pub attached: bool,
    /// Why not, from a closed set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Why not, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Health {
    /// `names`: all signals; `on`: those that are measured.
    pub fn of(names: &[&'static str], on: &[&str], hooks: &[HookStatus]) -> Self {
        let wanted = || hooks.iter().filter(|hook| !is_off(hook));
        let status = if wanted().all(|hook| hook.refusal.is_none()) {
            Status::Ready
        } else if wanted().any(|hook| hook.refusal.is_none()) {
            Status::Degraded
        } else {
            Status::Unavailable
        };
        let signals = names
            .iter()
            .map(|&name| {
                let hooks = hooks.iter().filter(|hook| hook.signal == name);
                SignalHealth::of(name, on.contains(&name), &hooks.collect::<Vec<_>>())
            })
            .collect();
        Self {
            status,
            signals,
            kubernetes: None,
            flow_store: None,
        }
    }

    /// The same, where names come from Kubernetes.
    #[must_use]
    pub fn in_kubernetes(mut self, kubernetes: Option<KubernetesHealth>) -> Self {
        self.degrade((kubernetes.as_ref()).is_some_and(|it| it.reason.is_some()));
        self.kubernetes = kubernetes;
        self
    }

    /// The same, where flows are stored.
    #[must_use]
    pub fn with_flow_store(mut self, store: Option<FlowStoreHealth>) -> Self {
        self.degrade((store.as_ref()).is_some_and(|it| it.reason.is_some()));
        self.flow_store = store;
        self
    }

    fn degrade(&mut self, is_lacking: bool) {
        if is_lacking && self.status == Status::Ready {
            self.status = Status::Degraded;
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.status, Status::Ready | Status::Degraded)
    }
}

impl SignalHealth {
    fn of(name: &'static str, on: bool, hooks: &[&HookStatus]) -> Self {
        let refusal = hooks.iter().find_map(|hook| hook.refusal.as_ref());
        let (state, reason) = match refusal {
            _ if on => ("on", None),
            Some(Refusal { reason: "off", .. }) | None => ("off", None),
            Some(
                refusal @ Refusal {
                    reason: "failed", ..
                },
            ) => ("failed", Some(refusal)),
            Some(refusal) => ("unavailable", Some(refusal)),
        };
        Self {
            name,
            state,
            reason: reason.map(|refusal| refusal.detail.clone()),
            hooks: hooks
                .iter()
                .filter(|hook| !is_off(hook))
                .map(|status| HookHealth {
                    hook: status.hook,
                    attached: status.refusal.is_none(),
                    reason: status.refusal.as_ref().map(|refusal| refusal.reason),
                    detail: status
                        .refusal
                        .as_ref()
                        .map(|refusal| refusal.detail.clone()),
                })
                .collect(),
        }
    }
}

fn is_off(hook: &HookStatus) -> bool {
    (hook.refusal.as_ref()).is_some_and(|refusal| refusal.reason == "off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(signal: &'static str, refusal: Option<&'static str>) -> HookStatus {
        HookStatus {
            signal,
            hook: "h",
            refusal: refusal.map(|reason| Refusal {
                reason,
                detail: "why".to_owned(),
            }),
        }
    }

    #[test]
    fn one_hook_is_enough_to_be_ready() {
        let check = |hooks: &[HookStatus], status, ready| {
            let health = Health::of(&["a", "b"], &[], hooks);
            assert_eq!((health.status, health.is_ready()), (status, ready));
        };
        check(&[hook("a", None), hook("b", None)], Status::Ready, true);
        check(
            &[hook("a", None), hook("b", Some("off"))],
            Status::Ready,
            true,
        );
        check(
            &[hook("a", None), hook("b", Some("permission_denied"))],
            Status::Degraded,
            true,
        );
        check(
            &[hook("a", Some("permission_denied"))],
            Status::Unavailable,
            false,
        );
        assert!(!Health::default().is_ready());
    }

    #[test]
    fn a_signal_says_why_it_is_not_on() {
        let hooks = [
            hook("dns", Some("failed")),
            hook("rtt", Some("off")),
            hook("tcp", None),
        ];
        let health = Health::of(&["dns", "rtt", "tcp"], &["tcp"], &hooks);
        let states: Vec<_> = (health.signals.iter())
            .map(|signal| (signal.state, signal.reason.as_deref()))
            .collect();
        assert_eq!(
            states,
            [("failed", Some("why")), ("off", None), ("on", None)]
        );
    }
}
