//! What is packaged, as far as it can be judged without installing it: units, image, compose file, Kubernetes manifest
//! and the package's configuration. Installing, upgrading and removing: `packaging/test`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::harness::{self, Daemon, Folder};

/// Long enough for every secret, and no placeholder; each has its own.
fn some_secret(of: &str) -> String {
    format!("5f1d8c0b7a3e4692a1c4-{of}")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
}

/// The documents of a YAML file, read by a parser that is not ours.
fn yaml(name: &str) -> Vec<Value> {
    let file = std::fs::File::open(root().join(name)).expect("the file");
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"]);
    let output = python.stdin(Stdio::from(file)).output().expect("python3 runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The instruction of the Dockerfile's last stage that begins so.
fn instruction(word: &str) -> String {
    let file = text("Dockerfile");
    let stage = file.rsplit_once("\nFROM scratch").expect("its last stage").1;
    let line = stage.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("no {word}"));
    line.trim().to_owned()
}

/// Runs what stands in an instruction as a list of words, with the executable of the tests.
fn run_words(list: &str, daemon: &Daemon) -> Output {
    let words: Vec<String> = serde_json::from_str(list).expect("a list of words: there is no shell");
    let (first, rest) = words.split_first().expect("a command");
    assert_eq!(first, "/usr/bin/quittance", "nothing else is in the image");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quittance"));
    command.args(rest).env("QUITTANCE_CONFIG", daemon.folder().join("quittance.toml"));
    command.output().expect("it runs")
}

/// `quittance check` of a configuration as the container would run it: with these variables and no others.
fn check(config: &str, variables: &BTreeMap<String, String>) -> Output {
    let folder = Folder::new();
    let store = toml_text(config, "store", "path");
    let own = config.replace(&format!("\"{store}\""), &format!("\"{}\"", folder.path().join("store").display()));
    std::fs::write(folder.path().join("quittance.toml"), own).expect("written");
    let mut command = harness::quittance(folder.path(), &["--config", "quittance.toml", "check"]);
    command.env_clear().envs(variables).output().expect("it runs")
}

#[track_caller]
fn passes_and_needs_each_variable(config: &str, variables: &BTreeMap<String, String>) {
    let output = check(config, variables);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(variables.len() >= 3, "{variables:?}");
    for name in variables.keys() {
        let mut fewer = variables.clone();
        fewer.remove(name);
        let output = check(config, &fewer);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(name.as_str()), "without {name}: {told}");
    }
}

fn toml_text(config: &str, table: &str, key: &str) -> String {
    let config: toml::Table = config.parse().expect("TOML");
    config[table][key].as_str().expect("a text").to_owned()
}

/// The port of `listener.address` and of `admin.address`.
fn ports(config: &str) -> [String; 2] {
    ["listener", "admin"].map(|table| {
        let address = toml_text(config, table, "address");
        let (host, port) = address.rsplit_once(':').expect("host and port");
        assert_eq!(host, "0.0.0.0", "in a container nobody reaches its loopback");
        port.to_owned()
    })
}

#[test]
fn systemd_takes_the_units_as_they_are_and_rates_the_sandbox_at_most_two() {
    let folder = Folder::new();
    let service = text("systemd/quittance.service");
    assert!(service.contains("ExecStartPre=/usr/bin/quittance check\nExecStart=/usr/bin/quittance serve\n"));
    // It looks for the executables that a unit names.
    let service = service.replace("/usr/bin/quittance", env!("CARGO_BIN_EXE_quittance"));
    std::fs::write(folder.path().join("quittance.service"), service).expect("written");
    std::fs::write(folder.path().join("quittance.socket"), text("systemd/quittance.socket")).expect("written");
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg("./quittance.service").current_dir(folder.path());
        let output = command.env("SYSTEMD_COLORS", "0").output().expect("systemd-analyze is installed");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {told}");
        (String::from_utf8(output.stdout).expect("UTF-8"), told)
    };
    // An unknown key is a warning to it, and success; what it says of the machine's other units is not ours.
    let (_, told) = analyze(&["verify", "--man=no", "./quittance.socket"]);
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("quittance")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    let (table, _) = analyze(&["security", "--offline=true", "--no-pager"]);
    let rating = table.rsplit_once("quittance.service: ").expect("a rating").1;
    let rating: f32 = rating.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(rating <= 2.0, "{table}");
}

#[test]
fn the_health_check_of_the_image_is_the_daemons_own_and_tells_a_stopped_one() {
    let mut daemon = Daemon::start();
    let health = instruction("HEALTHCHECK");
    let (_, words) = health.split_once("CMD ").expect("a command");
    let output = run_words(words, &daemon);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(daemon.stop().success());
    assert_eq!(run_words(words, &daemon).status.code(), Some(1), "nobody runs, and it is called healthy");

    assert_eq!(instruction("ENTRYPOINT"), r#"["/usr/bin/quittance"]"#);
    assert_eq!(instruction("CMD"), r#"["serve"]"#);
    assert_eq!(instruction("USER"), "65532:65532", "not root");
}

#[test]
fn the_compose_file_agrees_with_its_configuration_and_the_image() {
    let compose = &yaml("packaging/compose/compose.yaml")[0];
    let service = &compose["services"]["quittance"];
    let config = text("packaging/compose/config.toml");
    let asked = regex::Regex::new(r"\$\{(\w+):\?[^}]+\}").expect("a pattern");
    let variables = service["environment"].as_object().expect("variables");
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().expect("a text");
            assert!(asked.is_match(value), "{name} is written down, or silently empty");
            (name.clone(), asked.replace_all(value, some_secret("$1")).into_owned())
        })
        .collect();
    passes_and_needs_each_variable(&config, &variables);

    let of = |key: &str| -> Vec<String> {
        let list = service[key].as_array().unwrap_or_else(|| panic!("no {key}"));
        list.iter().map(|entry| entry.as_str().expect("a text").to_owned()).collect()
    };
    let published = ports(&config).map(|port| format!("127.0.0.1:{port}:{port}"));
    assert_eq!(of("ports"), published);
    let file = instruction("ENV QUITTANCE_CONFIG=");
    let volumes = [format!("./config.toml:{file}:ro"), format!("store:{}", toml_text(&config, "store", "path"))];
    assert_eq!(of("volumes"), volumes);
    assert!(compose["volumes"].get("store").is_some(), "the store outlives the container");
    let build = service["build"].as_str().expect("a folder");
    assert!(root().join("packaging/compose").join(build).join("Dockerfile").exists());
    // Both ends of the relay.
    let broker = &compose["services"]["rabbitmq"]["environment"];
    let user = broker["RABBITMQ_DEFAULT_USER"].as_str().expect("a user");
    assert!(asked.is_match(broker["RABBITMQ_DEFAULT_PASS"].as_str().expect("a password")));
    assert_eq!(
        variables["QUITTANCE_AMQP_URL"],
        format!("amqp://{user}:{}@rabbitmq:5672/%2f", some_secret("RABBITMQ_PASSWORD"))
    );
}

#[test]
fn the_kubernetes_manifest_agrees_with_its_configuration_and_the_image() {
    let manifest = "packaging/kubernetes/quittance.yaml";
    let documents = yaml(manifest);
    let kind =
        |kind: &str| documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("{kind}"));
    let config = kind("ConfigMap")["data"]["config.toml"].as_str().expect("a text");
    let set = &kind("StatefulSet")["spec"];
    let pod = &set["template"]["spec"];
    let container = &pod["containers"][0];
    let list = |value: &Value| value.as_array().cloned().expect("a list");
    let plain = |value: &Value| value.as_str().expect("a text").to_owned();

    let variables: BTreeMap<String, String> = list(&container["env"])
        .iter()
        .map(|variable| {
            let reference = &variable["valueFrom"]["secretKeyRef"];
            let key = plain(&reference["key"]);
            assert_eq!(reference["name"], "quittance");
            assert!(text(manifest).contains(&format!("--from-literal={key}=")), "nobody is told to make {key}");
            let broker = || "amqp://broker.example.com/%2f".to_owned();
            (plain(&variable["name"]), if key == "amqp-url" { broker() } else { some_secret(&key) })
        })
        .collect();
    passes_and_needs_each_variable(config, &variables);

    let named = |name: &str| list(&container["ports"]).into_iter().find(|port| port["name"] == name).expect("the port");
    assert_eq!(["public", "admin"].map(|name| named(name)["containerPort"].to_string()), ports(config));
    for port in list(&kind("Service")["spec"]["ports"]) {
        assert_eq!(port["port"], named(&plain(&port["targetPort"]))["containerPort"]);
    }
    assert_eq!(kind("Service")["spec"]["selector"], set["selector"]["matchLabels"]);
    assert_eq!(set["template"]["metadata"]["labels"], set["selector"]["matchLabels"]);
    assert_eq!(set["replicas"], 1, "one daemon per store");

    let mounted = |name: &str| {
        let mounts = list(&container["volumeMounts"]);
        plain(&mounts.iter().find(|mount| mount["name"] == name).expect("a mount")["mountPath"])
    };
    assert_eq!(mounted("store"), toml_text(config, "store", "path"));
    assert_eq!(
        mounted("config"),
        Path::new(&instruction("ENV QUITTANCE_CONFIG=")).parent().expect("its folder").display().to_string()
    );
    assert_eq!(set["volumeClaimTemplates"][0]["metadata"]["name"], "store");
    let user = &pod["securityContext"];
    assert_eq!(instruction("USER"), format!("{}:{}", user["runAsUser"], user["runAsGroup"]));
    assert_eq!(container["image"], concat!("quittance:", env!("CARGO_PKG_VERSION")));

    // What it asks, a daemon answers.
    let daemon = Daemon::start();
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "admin");
        let request = crate::http::request("GET", &plain(&get["path"]), &[], b"");
        assert_eq!(crate::http::send(daemon.admin, &request).expect("answered").status, 200, "{probe}");
    }
}

#[test]
fn the_packages_configuration_is_complete_with_the_credential_that_the_unit_loads() {
    let config = text("packaging/deb/config.toml");
    let service = text("systemd/quittance.service");
    // systemd hands a folder's files over under the name that stands before the colon, a `_` and theirs.
    let load = service.lines().find_map(|line| line.strip_prefix("LoadCredential=")).expect("a credential");
    let (name, folder) = load.split_once(':').expect("name and folder");
    assert!(config.contains(&format!("install -m 0600 /dev/stdin {folder}/paygol")), "it says where the secret goes");
    let credentials = Folder::new();
    let file = credentials.path().join(format!("{name}_paygol"));
    std::fs::write(&file, some_secret("paygol")).expect("written");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o400);
    std::fs::set_permissions(&file, private).expect("made private");
    let told = |folder: &Path| {
        let variables = [("CREDENTIALS_DIRECTORY".to_owned(), folder.display().to_string())];
        let output = check(&config, &variables.into_iter().collect());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = told(credentials.path());
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = told(Folder::new().path());
    assert!(status == Some(2) && said.contains("quittance_paygol"), "{said}");
    assert!(service.contains(&format!(
        "StateDirectory={}\n",
        toml_text(&config, "store", "path").trim_start_matches("/var/lib/")
    )));
    let socket = text("systemd/quittance.socket");
    assert!(socket.contains(&format!("ListenStream={}\n", toml_text(&config, "listener", "address"))), "one address");
}
