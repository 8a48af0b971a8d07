//! A running `gt-image serve` as commands ask it.
//! Must not know: what is done with the answer.
//! Spec: docs/http-api.md.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::{Global, Hint, project::Project};
use crate::serve::http;
use crate::serve::status::Status;

/// A server on the same network answers in milliseconds; one that is down is not waited for.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// Twice the server's keep-alive and some: a stream that is quieter than this is dead.
const QUIET: Duration = Duration::from_secs(40);
/// A status of a thousand nodes with ten boots each is a tenth of this.
const MOST: u64 = 64 << 20;

/// Which server.
#[derive(Args, Debug, Clone)]
pub struct Which {
    /// The server [default: port 8080 of `server` in cluster.toml]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

/// A server that can be asked.
#[derive(Debug, Clone)]
pub struct Server {
    url: String,
    agent: ureq::Agent,
}

impl Which {
    /// The server that is meant; `cluster.toml` is read only when it must say.
    pub fn find(&self, global: &Global) -> anyhow::Result<Server> {
        let url = match &self.server {
            Some(url) if url.contains("://") => url.trim_end_matches('/').to_owned(),
            Some(address) => format!("http://{}", address.trim_end_matches('/')),
            None => {
                let description = Project::find(global)?.load()?;
                let Some(address) = description.cluster.network.server else {
                    let none = anyhow::anyhow!("cluster.toml does not say where the server runs");
                    let hint = "add `server` to `[network]`, or name it with `--server URL`";
                    return Err(none.context(Hint(hint.into())));
                };
                http::url((address, http::PORT).into())
            }
        };
        Ok(Server::new(url))
    }
}

impl Server {
    fn new(url: String) -> Server {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // The server is on the nodes' own network, where no proxy leads.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(QUIET));
        Server { url, agent: config.build().new_agent() }
    }

    /// The status with so many boots of each node.
    pub fn status(&self, boots: usize) -> anyhow::Result<Status> {
        let mut text = String::new();
        let mut body = self.get(&format!("/status?boots={boots}"))?.take(MOST);
        body.read_to_string(&mut text).with_context(|| format!("reading from `{}`", self.url))?;
        serde_json::from_str(&text).with_context(|| self.no_status())
    }

    /// A status now and after each change, until the server ends.
    pub fn events(
        &self,
        boots: usize,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Status>> + use<>> {
        let body = BufReader::new(self.get(&format!("/events?boots={boots}"))?);
        let (url, what) = (self.url.clone(), self.no_status());
        Ok(events(body).map(move |data| {
            let data = data.with_context(|| format!("reading from `{url}`"))?;
            serde_json::from_str(&data).context(what.clone())
        }))
    }

    fn get(&self, page: &str) -> anyhow::Result<impl Read + use<>> {
        let answer = self.agent.get(format!("{}{page}", self.url)).call().map_err(|e| {
            let hint = format!(
                "start it there with `gt-image serve`, or name another with `--server URL`; \
                 `curl {}/healthz` shows whether it answers",
                self.url
            );
            anyhow::Error::new(e).context(Hint(hint)).context(format!("asking the server at `{}`", self.url))
        })?;
        let status = answer.status();
        if status != 200 {
            bail!("`{}{page}` answered {status}: is it a `gt-image serve`?", self.url);
        }
        Ok(answer.into_body().into_reader())
    }

    fn no_status(&self) -> String {
        format!("`{}` gave something that is no status: is it this version of gt-image?", self.url)
    }
}

/// The data of each event of a stream; comments and other fields are passed over. An event is complete at
/// its empty line (HTML, "Server-sent events").
fn events(body: impl BufRead) -> impl Iterator<Item = std::io::Result<String>> {
    let mut data = String::new();
    body.lines().filter_map(move |line| match line {
        Ok(line) if line.is_empty() => (!data.is_empty()).then(|| Ok(std::mem::take(&mut data))),
        Ok(line) => {
            if let Some(more) = line.strip_prefix("data:") {
                data.push_str(more.strip_prefix(' ').unwrap_or(more));
            }
            None
        }
        Err(error) => Some(Err(error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_are_sent() {
        let stream =
            ": hello\n\nevent: status\ndata: {\"a\":\ndata: 1}\n\n\n:\ndata:x\nid: 7\n\ndata: cut off";
        let found: Vec<String> = events(stream.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(found, ["{\"a\":1}", "x"]);
    }

    #[test]
    fn servers_may_be_named_short() {
        for (given, want) in [
            ("10.9.0.2:80", "http://10.9.0.2:80"),
            ("http://h:1/", "http://h:1"),
            ("https://proxy/gt", "https://proxy/gt"),
        ] {
            let which = Which { server: Some(given.into()) };
            assert_eq!(which.find(&Global::for_tests()).unwrap().url, want);
        }
    }
}
