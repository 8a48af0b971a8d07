//! What is staged for Kubernetes, and what Nomad and Vault are told: read by other people's parsers, and compared
//! with the description that it is made of. None of these programs can be had on every network.
//! Must not know: how templates are rendered. Spec: overlays/README.md; the k3s documentation on its auto-deploying
//! manifests and Helm controller; docs/affordances.md.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gt_image::layer::identity::ClusterKey;
use gt_image::overlay::{Description, Origin};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::root::Root;
use crate::support::{Tier, ok, repository, run, trial};

/// The index of Python packages is one that the archive's tests use too.
const READERS: &[Tier] = &[Tier::Archive, Tier::Judge(&["python3"])];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("manifests::charts_are_staged_where_k3s_looks", READERS, charts),
        trial("manifests::values_are_those_of_the_cluster", READERS, values),
        trial("manifests::kubernetes_servers_and_agents_find_each_other", READERS, kubernetes),
        trial("manifests::nomad_and_vault_know_their_peers", READERS, peers),
        trial("manifests::a_role_moves_with_a_line_of_the_description", READERS, moved),
    ]
}

const CHARTS: &[&str] = &["argo-cd", "external-dns", "external-secrets", "metallb", "sealed-secrets"];
const MANIFESTS: &str = "/var/lib/rancher/k3s/server/manifests";

fn folder() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manifests");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The repository's description with something changed.
fn description(name: &str, change: impl FnOnce(&mut toml::Table)) -> Description {
    let dir = folder().join(name);
    run("rm", ["-rf", dir.to_str().unwrap()]);
    fs::create_dir_all(&dir).unwrap();
    let text = fs::read_to_string(repository().join("cluster.toml")).unwrap();
    let mut cluster: toml::Table = text.parse().unwrap();
    change(&mut cluster);
    fs::write(dir.join("cluster.toml"), toml::to_string(&cluster).unwrap()).unwrap();
    run("cp", ["-r", repository().join("overlays").to_str().unwrap(), dir.to_str().unwrap()]);
    Description::load(&dir.join("cluster.toml")).unwrap_or_else(|e| panic!("{e}"))
}

fn root(name: &str, description: &Description, node: &str, overlays: &[&str]) -> Root {
    let dir = folder().join(format!("{name}.{node}"));
    run("rm", ["-rf", dir.to_str().unwrap()]);
    fs::create_dir_all(&dir).unwrap();
    let (key, _) = ClusterKey::load_or_make(&dir.join("cluster.key")).unwrap();
    Root::new(&dir, description, &key, node, overlays)
}

/// A text as a Python package reads it.
fn read(kind: &str, text: &str) -> Value {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readers");
        if !venv.join("done").exists() {
            run("python3", ["-m", "venv", venv.to_str().unwrap()]);
            let packages = ["install", "--quiet", "pyyaml==6.0.3", "python-hcl2==8.1.4"];
            ok(Command::new(venv.join("bin/pip")).args(packages));
            fs::write(venv.join("done"), "").unwrap();
        }
        venv.join("bin/python")
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let script = repository().join("tests/readers.py");
    let said = ok(Command::new(python).arg(script).arg(kind).arg(file.path()));
    let read: Value = serde_json::from_str(&said).unwrap();
    read[file.path().to_str().unwrap()].clone()
}

fn documents(root: &Root, file: &str) -> Vec<Value> {
    let read = read("yaml", &root.read(file));
    let documents = read.as_array().unwrap().clone();
    for document in &documents {
        for key in ["apiVersion", "kind"] {
            assert!(document[key].is_string(), "{file}: {document:#}");
        }
        assert!(document["metadata"]["name"].is_string(), "{file}: {document:#}");
    }
    documents
}

fn of_kind(documents: &[Value], kind: &str) -> Value {
    documents.iter().find(|d| d["kind"] == kind).unwrap_or_else(|| panic!("no {kind}")).clone()
}

/// What the chart of an overlay is told.
fn chart_values(root: &Root, overlay: &str) -> Value {
    let chart = of_kind(&documents(root, &format!("{MANIFESTS}/{overlay}.yaml")), "HelmChart");
    read("yaml", chart["spec"]["valuesContent"].as_str().unwrap())[0].clone()
}

fn charts() {
    let description = description("charts", |_| {});
    let root = root("charts", &description, "bettley", CHARTS);
    for name in CHARTS {
        let overlay = description.overlays.iter().find(|o| o.name.as_str() == *name).unwrap();
        let [artifact] = overlay.artifacts.as_slice() else { panic!("{name}: {:?}", overlay.artifacts) };
        let Origin::Url(url) = &artifact.origin else { panic!("{name}") };
        let (_, file) = url.rsplit_once('/').unwrap();
        let to: Vec<_> = artifact.extract.iter().map(|e| (e.from.clone(), e.to.to_string())).collect();
        assert_eq!(to, [(None, format!("/var/lib/rancher/k3s/server/static/charts/{file}"))]);
        let chart = of_kind(&documents(&root, &format!("{MANIFESTS}/{name}.yaml")), "HelmChart");
        assert_eq!(chart["apiVersion"], "helm.cattle.io/v1");
        // The controller looks at this namespace alone.
        assert_eq!(chart["metadata"]["namespace"], "kube-system");
        let wanted = format!("https://%{{KUBERNETES_API}}%/static/charts/{file}");
        assert_eq!(chart["spec"]["chart"], wanted.as_str());
        assert!(chart_values(&root, name).is_object(), "{name}");
        // A chart's own kinds are in a file of their own.
        let kinds = documents(&root, &format!("{MANIFESTS}/{name}.yaml"));
        assert!(kinds.iter().all(|d| ["HelmChart", "Namespace"].contains(&d["kind"].as_str().unwrap())));
        for secret in &overlay.secrets {
            let path = secret.file.path.to_string();
            assert!(path.starts_with(MANIFESTS) && path.ends_with(".yaml"), "k3s applies {path}");
            assert_eq!(secret.file.mode.bits(), 0o400);
        }
    }
}

fn values() {
    let description = description("values", |_| {});
    let root = root("values", &description, "cargyll", CHARTS);
    let pool = of_kind(&documents(&root, &format!("{MANIFESTS}/metallb-pool.yaml")), "IPAddressPool");
    let range = pool["spec"]["addresses"][0].as_str().unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let [first, last] = [first, last].map(|a| a.parse::<Ipv4Addr>().unwrap());
    // 10.4.0.0/20.
    let inside = |a: Ipv4Addr| u32::from(a) >> 12 == u32::from(Ipv4Addr::new(10, 4, 0, 0)) >> 12;
    assert!(inside(first) && inside(last) && first < last, "{range}");
    let nodes = &description.cluster.nodes;
    assert!(nodes.iter().all(|n| !(first..=last).contains(&n.ip)), "a node is in {range}");
    let advertisement =
        of_kind(&documents(&root, &format!("{MANIFESTS}/metallb-pool.yaml")), "L2Advertisement");
    assert_eq!(advertisement["spec"]["ipAddressPools"][0], pool["metadata"]["name"]);
    assert_eq!(chart_values(&root, "metallb")["speaker"]["frr"]["enabled"], false);

    let store = documents(&root, &format!("{MANIFESTS}/external-secrets-vault.yaml"));
    let addresses = of_kind(&store, "Endpoints")["subsets"][0]["addresses"].clone();
    let vaults = ["10.4.0.11", "10.4.0.12", "10.4.0.13"].map(|ip| serde_json::json!({ "ip": ip }));
    assert_eq!(addresses, serde_json::json!(vaults));
    let service = of_kind(&store, "Service");
    let name =
        |d: &Value| format!("{}.{}", d["metadata"]["name"], d["metadata"]["namespace"]).replace('"', "");
    assert_eq!(name(&service), name(&of_kind(&store, "Endpoints")), "Endpoints belong to a service by name");
    let server = &of_kind(&store, "ClusterSecretStore")["spec"]["provider"]["vault"]["server"];
    assert_eq!(*server, format!("https://{}.svc:8200", name(&service)).as_str());

    let dns = chart_values(&root, "external-dns");
    assert_eq!(
        (&dns["domainFilters"][0], &dns["sources"][0]),
        (&"goldentooth.net".into(), &"service".into())
    );
    let argo = chart_values(&root, "argo-cd");
    let names = argo["server"]["service"]["annotations"]["external-dns.alpha.kubernetes.io/hostname"].clone();
    assert_eq!(names, argo["global"]["domain"]);
    assert!(names.as_str().unwrap().ends_with(".goldentooth.net"), "in the zone that ExternalDNS writes to");
    assert_eq!(argo["configs"]["params"]["server.insecure"], true);
}

fn kubernetes() {
    let description = description("kubernetes", |_| {});
    let config = |node: &str, overlay: &str| {
        let root = root("kubernetes", &description, node, &[overlay]);
        (read("yaml", &root.read("/etc/rancher/k3s/config.yaml"))[0].clone(), root)
    };
    let (server, root) = config("dalt", "k3s-server");
    let names: Vec<&str> =
        server["tls-san"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    for name in ["10.4.0.10", "lb-apiserver.kubernetes.local", "10.4.0.11", "10.4.0.12"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!((&server["node-ip"], &server["service-cidr"]), (&"10.4.0.13".into(), &"172.16.0.0/20".into()));
    assert_eq!(server["disable"], serde_json::json!(["servicelb", "traefik"]));
    let unit = root.read("/etc/systemd/system/k3s.service");
    assert!(unit.contains("k3s-start server later 10.4.0.11 10.4.0.12\n"), "{unit}");
    let (agent, root) = config("jast", "k3s-agent");
    assert_eq!((&agent["server"], &agent["node-name"]), (&"https://10.4.0.10:6443".into(), &"jast".into()));
    // A worker has no token that makes it a server.
    let unit = root.read("/etc/systemd/system/k3s.service");
    assert!(unit.contains("k3s-start agent\n") && !unit.contains("server"), "{unit}");
    let k3s = description.overlays.iter().find(|o| o.name.as_str() == "k3s").unwrap();
    let to: Vec<String> = k3s.artifacts.iter().flat_map(|a| &a.extract).map(|e| e.to.to_string()).collect();
    let images = "/var/lib/rancher/k3s/agent/images/k3s-airgap-images-arm64.tar.zst";
    assert_eq!(to, ["/usr/local/bin/k3s", images]);
}

/// All texts in a value, without the quotes that python-hcl2 leaves on them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.trim_matches('"').to_owned()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Object(values) => {
            values.iter().filter(|(key, _)| *key != "__comments__").flat_map(|(_, v)| texts(v)).collect()
        }
        _ => Vec::new(),
    }
}

fn peers() {
    let description = description("peers", |_| {});
    let nomad = root("peers", &description, "cargyll", &["nomad-server"]);
    let server = read("hcl", &nomad.read("/etc/nomad.d/server.hcl"))["server"][0].clone();
    assert_eq!(server["bootstrap_expect"], 3);
    assert_eq!(texts(&server["server_join"][0]["retry_join"]), ["10.4.0.11", "10.4.0.13"]);
    assert!(nomad.read("/etc/systemd/system/nomad.service").contains("\nUser=nomad\n"));
    let worker = root("peers", &description, "gardener", &["nomad-client"]);
    let client = read("hcl", &worker.read("/etc/nomad.d/client.hcl"))["client"][0].clone();
    assert_eq!(texts(&client["server_join"][0]["retry_join"]), ["10.4.0.11", "10.4.0.12", "10.4.0.13"]);
    assert_eq!(texts(&client["cni_path"]), ["/usr/lib/cni"], "Debian's place");
    assert!(worker.read("/etc/systemd/system/nomad.service").contains("\nUser=root\n"));
    let common = read("hcl", &worker.read("/etc/nomad.d/nomad.hcl"));
    assert_eq!(texts(&common["advertise"][0]["rpc"]), ["10.4.0.16"]);

    let vault = |description: &Description| {
        read("hcl", &root("peers", description, "bettley", &["vault"]).read("/etc/vault.d/vault.hcl"))
    };
    let raft = vault(&description);
    let storage = texts(&raft["storage"]);
    for text in ["bettley", "https://10.4.0.12:8200", "https://10.4.0.13:8200"] {
        assert!(storage.contains(&text.to_owned()), "{storage:?}");
    }
    assert_eq!(texts(&raft["seal"]), ["alias/goldentooth/vault-seal", "us-east-1"]);
    let in_consul = vault(&self::description("peers-consul", |cluster| {
        let vars = cluster["vars"].as_table_mut().unwrap();
        vars.insert("vault_storage".into(), "consul".into());
        vars.remove("vault_seal_key");
    }));
    assert_eq!(texts(&in_consul["storage"]), ["127.0.0.1:8500", "vault/"]);
    assert!(in_consul.get("seal").is_none(), "unsealed by hand");
}

/// dalt and erenford change places.
fn moved() {
    let description = description("moved", |cluster| {
        for node in cluster["node"].as_array_mut().unwrap() {
            let role = match node["name"].as_str().unwrap() {
                "dalt" => "worker",
                "erenford" => "leader",
                _ => continue,
            };
            node.as_table_mut().unwrap().insert("roles".into(), vec![role].into());
        }
    });
    let edge = root("moved", &description, "allyrion", &["haproxy", "consul-client"]);
    let consul = edge.read("/etc/consul.d/consul.hcl");
    for file in [&consul, &edge.read("/etc/haproxy/haproxy.cfg")] {
        assert!(file.contains("10.4.0.14") && !file.contains("10.4.0.13"), "{file}");
    }
    let leader = root("moved", &description, "erenford", &["leader"]);
    let unit = leader.read("/etc/systemd/system/k3s.service");
    assert!(unit.contains("k3s-start server later 10.4.0.11 10.4.0.12\n"), "{unit}");
    let vaults = leader.read(&format!("{MANIFESTS}/external-secrets-vault.yaml"));
    assert!(vaults.contains("- ip: 10.4.0.14") && !vaults.contains("10.4.0.13"), "{vaults}");
}
