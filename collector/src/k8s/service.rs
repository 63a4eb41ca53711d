//! Services and EndpointSlices: the address that clients use, and who answers there.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Their numbers as protocols of IP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is kept of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceMeta {
    /// ClusterIPs, external addresses and those of load balancers.
    pub addresses: Vec<IpAddr>,
    /// Where it listens at those: the number of the protocol, and the port.
    pub ports: Vec<(u8, u16)>,
}

/// What is kept of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceMeta {
    pub service: Box<str>,
    pub endpoints: Vec<IpAddr>,
}

pub fn service(service: &Service) -> ServiceMeta {
    let spec = service.spec.clone().unwrap_or_default();
    let cluster = spec.cluster_ips.unwrap_or_default().into_iter();
    let external = spec.external_ips.unwrap_or_default();
    let balancers = (service.status.as_ref())
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref())
        .unwrap_or_default();
    let balancers = balancers.iter().filter_map(|ingress| ingress.ip.clone());
    let all = cluster
        .chain(spec.cluster_ip)
        .chain(external)
        .chain(balancers);
    let mut addresses: Vec<IpAddr> = all.filter_map(|text| parse(&text)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let ports = (spec.ports.iter().flatten())
        .filter_map(|port| {
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => TCP,
                Some("UDP") => UDP,
                // Nobody asks for others.
                Some(_) => return None,
            };
            Some((protocol, u16::try_from(port.port).ok()?))
        })
        .collect();
    ServiceMeta { addresses, ports }
}

/// `None` if it belongs to no Service, or holds names instead of addresses.
pub fn endpoint_slice(slice: &EndpointSlice) -> Option<SliceMeta> {
    let labels = slice.metadata.labels.as_ref()?;
    let service = labels.get("kubernetes.io/service-name")?.as_str().into();
    let endpoints = (slice.endpoints.iter().flatten())
        // One that is terminating still answers those that it has.
        .flat_map(|endpoint| endpoint.addresses.iter().filter_map(|text| parse(text)))
        .collect();
    (slice.address_type != "FQDN").then_some(SliceMeta { service, endpoints })
}

/// `None` also for `None` itself, which is a headless Service's ClusterIP.
fn parse(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|it| it.to_canonical())
}
