//! A flow as it is shown where Kubernetes knows more of its ends.

use serde::Serialize;

use crate::flows::Row;
use crate::k8s::Index;

#[derive(Serialize)]
pub(super) struct ClusterRow {
    #[serde(flatten)]
    row: Row,
    /// The Service whose address the client asked for, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_zone: Option<String>,
    /// Known if both zones are.
    #[serde(skip_serializing_if = "Option::is_none")]
    crosses_zones: Option<bool>,
}

impl ClusterRow {
    /// Zones and Services are those of now.
    pub(super) fn of(row: Row, index: &Index) -> Self {
        let asked = row.service.map_or(row.dst_address, |service| service.ip());
        let service = index.service_at(asked);
        let zone = |address| index.zone_at(address).map(str::to_owned);
        let (src_zone, dst_zone) = (zone(row.src_address), zone(row.dst_address));
        let both = src_zone.as_ref().zip(dst_zone.as_ref());
        Self {
            service_name: service.map(|key| format!("{}/{}", key.namespace, key.name)),
            crosses_zones: both.map(|(src, dst)| src != dst),
            src_zone,
            dst_zone,
            row,
        }
    }
}
