//! Samples as Prometheus reads them: the server's own counters, and what follows from the status.
//! Must not know: who counts, HTTP.
//! Spec: OpenMetrics 1.0 text format, by the crate `prometheus-client`.

use std::fmt;
use std::sync::atomic::Ordering;

use gt_netboot::dhcp;
use gt_netboot::nfs::Calls;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::board::Metric;
use super::status::{Outcome, Status};

/// What [`text`] is, for the header `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Steps whose time is worth a graph; files are too many.
const STEPS: [&str; 6] = ["discover", "mount", "init", "root", "switch", "login"];

/// The whole page: `counted` by the server and what `status` tells.
pub fn text(counted: Vec<Metric>, status: &Status) -> Result<String, fmt::Error> {
    let mut samples = counted;
    samples.extend(derived(status));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Samples(grouped(samples))));
    let mut page = String::new();
    encode(&mut page, &registry)?;
    Ok(page)
}

/// Samples, those of one name together.
#[derive(Debug)]
struct Samples(Vec<Vec<Metric>>);

/// The format wants all samples of a name in one piece; the order of names is that of their first
/// samples.
fn grouped(samples: Vec<Metric>) -> Vec<Vec<Metric>> {
    let mut groups: Vec<Vec<Metric>> = Vec::new();
    for sample in samples {
        match groups.iter_mut().find(|group| group[0].name == sample.name) {
            Some(group) => group.push(sample),
            None => groups.push(vec![sample]),
        }
    }
    groups
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for group in &self.0 {
            let Metric { name, help, counter, .. } = group[0];
            // The encoder adds `_total` to counters.
            let name = name.strip_suffix("_total").filter(|_| counter).unwrap_or(name);
            let kind = if counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for sample in group {
                if sample.labels.is_empty() {
                    write(&mut family, sample)?;
                } else {
                    write(&mut family.encode_family(&sample.labels)?, sample)?;
                }
            }
        }
        Ok(())
    }
}

fn write(encoder: &mut MetricEncoder, sample: &Metric) -> fmt::Result {
    if sample.counter {
        encoder.encode_counter::<NoLabelSet, f64, f64>(&sample.value, None)
    } else {
        encoder.encode_gauge(&sample.value)
    }
}

fn gauge(name: &'static str, help: &'static str, labels: &[(&'static str, &str)], value: f64) -> Metric {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Metric { name, help, counter: false, labels, value }
}

/// What only grows.
pub fn counter(
    name: &'static str,
    help: &'static str,
    labels: Vec<(&'static str, String)>,
    value: u64,
) -> Metric {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
    let value = value as f64;
    Metric { name, help, counter: true, labels, value }
}

/// A node's NFS calls: of 25 procedures a node never calls half, and those are left out.
pub fn nfs(node: &str, calls: &Calls) -> Vec<Metric> {
    let of = || ("node", node.to_owned());
    let called = calls.iter().filter(|(_, count)| *count > 0).map(|(procedure, count)| {
        let labels = vec![of(), ("procedure", procedure.to_owned())];
        counter("gt_nfs_calls_total", "NFS calls of a node, by procedure.", labels, count)
    });
    let help = "Bytes of content that READ gave.";
    let read = counter("gt_nfs_read_bytes_total", help, vec![of()], calls.bytes_read());
    called.chain([read]).collect()
}

/// What the DHCP server counts.
pub fn dhcp(counters: &dhcp::Counters) -> Vec<Metric> {
    [
        ("gt_dhcp_received_total", "Datagrams at the DHCP port.", &counters.received),
        ("gt_dhcp_malformed_total", "Datagrams at the DHCP port that were no DHCP.", &counters.malformed),
        ("gt_dhcp_sent_total", "DHCP replies sent.", &counters.sent),
        (
            "gt_dhcp_dropped_total",
            "DHCP replies that could not be sent, and packets beyond the queue.",
            &counters.dropped,
        ),
    ]
    .into_iter()
    .map(|(name, help, count)| counter(name, help, Vec::new(), count.load(Ordering::Relaxed)))
    .collect()
}

/// What a graph of a cluster is made of: how its nodes last booted.
fn derived(status: &Status) -> Vec<Metric> {
    let mut out = vec![
        gauge("gt_nodes", "Nodes in the description", &[], count(status.nodes.len())),
        gauge(
            "gt_strangers",
            "Machines that asked and are not in the description",
            &[],
            count(status.strangers.len()),
        ),
        gauge(
            "gt_foreign_dhcp_servers",
            "DHCP servers heard beside this one",
            &[],
            count(status.servers.len()),
        ),
    ];
    for node in &status.nodes {
        let of = ("node", node.name.as_str());
        let buildless = f64::from(u8::from(node.generation.is_none()));
        out.push(gauge("gt_node_without_generation", "1 when there is nothing to boot", &[of], buildless));
        for problem in &node.problems {
            let labels = [of, ("problem", problem.kind.as_str())];
            out.push(gauge("gt_node_problem", "1 for what of a node does not fit", &labels, 1.0));
        }
        let Some(boot) = node.boots.first() else { continue };
        let age = seconds(status.now.saturating_sub(boot.began));
        out.push(gauge("gt_last_boot_age_seconds", "Time since the last boot began", &[of], age));
        out.push(gauge("gt_last_boot_bytes", "Bytes sent in the last boot", &[of], bytes(boot.bytes())));
        let outcome = [of, ("outcome", boot.outcome.as_str())];
        out.push(gauge("gt_last_boot_outcome", "1 for how the last boot stands", &outcome, 1.0));
        let behind = f64::from(u8::from(node.pinned != node.generation));
        out.push(gauge("gt_node_behind", "1 when another generation runs than is current", &[of], behind));
        if let (Outcome::Login, Some(at)) = (boot.outcome, boot.until("login")) {
            let help = "Time from the first request to login in the last boot";
            out.push(gauge("gt_last_boot_seconds", help, &[of], seconds(at)));
        }
        for step in STEPS {
            let Some(at) = boot.until(step) else { continue };
            let labels = [of, ("step", step)];
            let help = "Time from the first request to a step of the last boot";
            out.push(gauge("gt_last_boot_step_seconds", help, &labels, seconds(at)));
        }
    }
    out
}

fn count(len: usize) -> f64 {
    u32::try_from(len).map_or(f64::INFINITY, f64::from)
}

#[expect(clippy::cast_precision_loss, reason = "a boot's time is far below 2^53 ms")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a graph does not show the bytes above 2^53")]
fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::status::tests::example;

    fn called(procedure: &str, value: u64) -> Metric {
        counter("gt_nfs_calls_total", "NFS calls.", vec![("procedure", procedure.to_owned())], value)
    }

    #[test]
    fn counters_come_out_once_named_and_escaped() {
        let refused = counter("gt_refused_total", "Refused", vec![], 2);
        let page = text(vec![called("READ", 3), refused, called("a\"\\\nb", 1)], &Status::default()).unwrap();
        let wanted = "# HELP gt_nfs_calls NFS calls.\n\
                      # TYPE gt_nfs_calls counter\n\
                      gt_nfs_calls_total{procedure=\"READ\"} 3.0\n\
                      gt_nfs_calls_total{procedure=\"a\\\"\\\\\\nb\"} 1.0\n\
                      # HELP gt_refused Refused\n\
                      # TYPE gt_refused counter\n\
                      gt_refused_total 2.0\n";
        assert!(page.starts_with(wanted), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn what_the_servers_count_is_told() {
        let counters = dhcp::Counters::default();
        counters.sent.store(4, Ordering::Relaxed);
        let mut counted = dhcp(&counters);
        // Calls are counted by the server alone: a node without one has its bytes.
        counted.extend(nfs("fenn", &Calls::default()));
        let page = text(counted, &Status::default()).unwrap();
        for line in [
            "gt_dhcp_sent_total 4.0",
            "gt_dhcp_dropped_total 0.0",
            "gt_nfs_read_bytes_total{node=\"fenn\"} 0.0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("gt_nfs_calls"), "{page}");
    }

    #[test]
    fn the_status_gives_ages_and_times() {
        let page = text(Vec::new(), &example()).unwrap();
        for line in [
            "gt_nodes 2.0",
            "gt_strangers 1.0",
            "gt_foreign_dhcp_servers 1.0",
            "gt_last_boot_age_seconds{node=\"fenn\"} 120.0",
            "gt_last_boot_seconds{node=\"fenn\"} 31.2",
            "gt_last_boot_bytes{node=\"fenn\"} 2255872.0",
            "gt_last_boot_outcome{node=\"fenn\",outcome=\"login\"} 1.0",
            "gt_last_boot_step_seconds{node=\"fenn\",step=\"mount\"} 9.87",
            "gt_node_behind{node=\"fenn\"} 0.0",
            "gt_node_without_generation{node=\"jast\"} 1.0",
            "gt_node_problem{node=\"jast\",problem=\"serial\"} 1.0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("gt_last_boot_age_seconds{node=\"jast\"}"), "jast never booted");
    }

    #[test]
    fn no_name_is_described_twice() {
        let page = text(vec![called("READ", 1)], &example()).unwrap();
        let mut types: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), all);
    }
}
