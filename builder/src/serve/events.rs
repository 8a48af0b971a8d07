//! Warnings of the protocol servers, which know no log of ours, as lines of it.
//! Must not know: what a warning is about.
//! Spec: the crate `tracing`, `Subscriber`. Spans are not used, so none is kept.

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::log::Log;

/// Has the whole process tell its warnings to `log`; a second call changes nothing.
pub fn tell(log: Arc<Log>) {
    // Somebody who embeds the server has a subscriber of his own, and gets the events.
    let _ = tracing::subscriber::set_global_default(Events { log });
}

struct Events {
    log: Arc<Log>,
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && area(metadata.target()).is_some()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(area) = area(event.metadata().target()) else { return };
        let mut line = Line::default();
        event.record(&mut line);
        // A machine without descriptors left warns at every packet.
        self.log.complain(line.node.as_deref().unwrap_or("serve"), area, &line.text());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // Zero is no id.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The protocol, by the module that warns: ours are `gt_netboot::tftp::service`, `gt_image::serve::http`.
/// `None` for libraries.
fn area(target: &str) -> Option<&str> {
    let ours = target.strip_prefix("gt_netboot::").or_else(|| target.strip_prefix("gt_image::serve::"))?;
    ours.split("::").next()
}

/// The words of an event: the message, then its fields; the node's name by itself.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
    node: Option<String>,
}

impl Line {
    fn text(&self) -> String {
        [self.message.as_str(), &self.fields]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": ")
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String never fails.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => {
                let comma = if self.fields.is_empty() { "" } else { ", " };
                write!(self.fields, "{comma}{name} {value:?}")
            }
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "node" => self.node = Some(value.to_owned()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Who a line is about, and what it says.
    type Told = (Option<String>, String);

    /// Collects the line of each event that is enabled.
    struct Heard(Events, Arc<Mutex<Vec<Told>>>);

    impl Subscriber for Heard {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.0.enabled(metadata)
        }
        fn event(&self, event: &Event<'_>) {
            let mut line = Line::default();
            event.record(&mut line);
            self.1.lock().unwrap().push((line.node.clone(), line.text()));
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0.new_span(span)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn warnings_of_ours_become_lines() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let events = Events { log: Arc::new(Log::default()) };
        tracing::subscriber::with_default(Heard(events, heard.clone()), || {
            let error = std::io::Error::from_raw_os_error(24);
            tracing::warn!(target: "gt_netboot::dhcp::service", to = %"10.9.0.11:68", %error, "a reply was lost");
            tracing::warn!(target: "gt_image::serve::http", node = "fenn", unsaid = 3, "refused");
            tracing::error!(target: "gt_netboot::tftp", "TFTP: {}", 7);
            tracing::info!(target: "gt_netboot::tftp", "quiet");
            tracing::warn!(target: "hyper::proto", "another's");
            let _span = tracing::error_span!(target: "gt_netboot::nfs", "a span").entered();
        });
        let heard = heard.lock().unwrap();
        let heard: Vec<_> = heard.iter().map(|(node, text)| (node.as_deref(), text.as_str())).collect();
        let lost = "a reply was lost: to 10.9.0.11:68, error Too many open files (os error 24)";
        assert_eq!(heard, [(None, lost), (Some("fenn"), "refused: unsaid 3"), (None, "TFTP: 7")]);
    }

    #[test]
    fn the_area_is_the_protocol() {
        for (target, want) in [
            ("gt_netboot::tftp::service", Some("tftp")),
            ("gt_netboot::dhcp", Some("dhcp")),
            ("gt_image::serve::http::pages", Some("http")),
            ("gt_image::build", None),
            ("gt_netbooted::x", None),
        ] {
            assert_eq!(area(target), want, "{target}");
        }
    }
}
