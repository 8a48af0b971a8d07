//! What templates can reach, and their rendering.
//! Must not know: which file a template becomes.
//! Spec: docs/overlay-format.md, section Templates; Jinja2's defaults, undefined is an error.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::{RenderError, Result};
use crate::cluster::{Cluster, Node, Sudo, TimeZone, User};
use crate::diagnostic::{Place, nearest};
use crate::overlay::Overlays;

/// The description as one node's templates see it.
pub struct Context {
    environment: Environment<'static>,
    users: Vec<User>,
    host_name: String,
    timezone: TimeZone,
}

impl Context {
    /// The context of one node.
    pub fn new(cluster: &Cluster, overlays: &Overlays, node: &Node) -> Context {
        let mut environment = empty_environment();
        let nodes: Vec<(BTreeSet<String>, Value)> =
            cluster.nodes.iter().map(|node| node_value(cluster, overlays, node)).collect();
        environment.add_global("node", node_value(cluster, overlays, node).1);
        environment.add_global("nodes", nodes.iter().map(|(_, v)| v.clone()).collect::<Vec<_>>());
        environment.add_global("cluster", cluster_value(cluster));
        environment.add_global("network", network_value(cluster));
        environment.add_global("users", cluster.users.iter().map(user_value).collect::<Vec<_>>());
        let mut vars = cluster.vars.clone();
        vars.extend(node.vars.clone());
        environment.add_global("vars", toml_value(&toml::Value::Table(vars)));
        let known: Vec<String> = overlays.names().iter().map(|name| name.to_string()).collect();
        environment.add_function("nodes_with", move |role: String| nodes_with(&role, &known, &nodes));
        Context {
            environment,
            users: cluster.users.clone(),
            host_name: node.name.to_string(),
            timezone: cluster.timezone.clone(),
        }
    }

    /// The same with one more name, for templates that are no overlay's.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Context {
        self.environment.add_global(name, value.to_owned());
        self
    }

    /// Renders a template; `name` is its file for messages.
    pub fn render(&self, name: &str, text: &str) -> Result<String> {
        self.environment.render_named_str(name, text, ()).map_err(|error| {
            let line = error.line().unwrap_or(1);
            let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            let context = text.lines().nth(line.saturating_sub(1)).map_or("", str::trim);
            let place = Place::at(error.name().unwrap_or(name), line, 1);
            RenderError::Template { place, what: format!("{what} in `{context}`") }
        })
    }

    pub(super) fn users(&self) -> &[User] {
        &self.users
    }

    pub(super) fn host_name(&self) -> &str {
        &self.host_name
    }

    pub(super) fn timezone(&self) -> &TimeZone {
        &self.timezone
    }
}

fn empty_environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Off in release builds otherwise, and then errors do not name the variable.
    environment.set_debug(true);
    // Templates are configuration files, not HTML, whatever their names end in.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true);
    // Only delimiters can make a syntax wrong, and these are the usual ones.
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment
}

fn nodes_with(
    role: &str,
    known: &[String],
    nodes: &[(BTreeSet<String>, Value)],
) -> std::result::Result<Vec<Value>, Error> {
    if !known.iter().any(|name| name == role) {
        let near = nearest(role, known.iter().map(String::as_str));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Err(Error::new(ErrorKind::InvalidOperation, format!("unknown role `{role}`{hint}")));
    }
    Ok(nodes.iter().filter(|(roles, _)| roles.contains(role)).map(|(_, node)| node.clone()).collect())
}

/// A node with the names of all its overlays.
fn node_value(cluster: &Cluster, overlays: &Overlays, node: &Node) -> (BTreeSet<String>, Value) {
    let roles: Vec<String> = overlays.expand_node(node).iter().map(|o| o.name.to_string()).collect();
    let mut fields: BTreeMap<&str, Value> = BTreeMap::from([
        ("name", node.name.as_str().into()),
        ("index", node.index.into()),
        ("ip", node.ip.to_string().into()),
        ("mac", node.mac.to_string().into()),
        ("serial", node.serial.to_string().into()),
        ("model", node.model.as_str().into()),
        ("root", node.root.as_str().into()),
        ("roles", roles.clone().into()),
        ("fqdn", cluster.fqdn(node).into()),
        ("vars", toml_value(&toml::Value::Table(node.vars.clone()))),
    ]);
    // Left out rather than empty, so that a template which needs it fails and does not guess.
    fields.extend(node.ram.map(|ram| ("ram", ram.to_string().into())));
    (roles.into_iter().collect(), fields.into())
}

fn cluster_value(cluster: &Cluster) -> Value {
    BTreeMap::from([
        ("name", Value::from(cluster.name.as_str())),
        ("domain", cluster.domain.as_str().into()),
        ("timezone", cluster.timezone.as_str().into()),
    ])
    .into()
}

fn network_value(cluster: &Cluster) -> Value {
    let network = &cluster.network;
    let mut fields = BTreeMap::from([
        ("subnet", Value::from(network.subnet.to_string())),
        ("prefix_len", network.subnet.prefix_len().into()),
        ("netmask", network.subnet.netmask().to_string().into()),
        ("dns", network.dns.iter().map(|a| a.to_string()).collect::<Vec<_>>().into()),
    ]);
    fields.extend(network.gateway.map(|a| ("gateway", a.to_string().into())));
    fields.extend(network.server.map(|a| ("server", a.to_string().into())));
    fields.into()
}

fn user_value(user: &User) -> Value {
    let sudo: Value = match user.sudo {
        Sudo::None => false.into(),
        Sudo::Password => true.into(),
        Sudo::NoPassword => "nopasswd".into(),
    };
    BTreeMap::from([
        ("name", Value::from(user.name.as_str())),
        ("uid", user.uid.into()),
        ("groups", user.groups.iter().map(|g| g.to_string()).collect::<Vec<_>>().into()),
        ("sudo", sudo),
        ("ssh_keys", user.ssh_keys.clone().into()),
    ])
    .into()
}

/// As deep as the file nests, and its parser takes no more than 80 levels.
fn toml_value(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(yes) => (*yes).into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(all) => all.iter().map(toml_value).collect::<Vec<_>>().into(),
        toml::Value::Table(table) => table
            .iter()
            .map(|(key, value)| (key.clone(), toml_value(value)))
            .collect::<BTreeMap<_, _>>()
            .into(),
    }
}
