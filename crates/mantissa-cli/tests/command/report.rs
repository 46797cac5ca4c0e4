//! The report of runs, and its server, on the command line.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::{Folder, mantissa};

const TINY: &str = "schema = 1\n\
    [data]\nevaluation_batches = 1\n[model]\nseq_len = 16\nd_model = 32\nd_ff = 64\nn_layers = 1\n\
    [training]\nsteps = 4\nbatch_size = 8\n[numerics]\nrecipe = \"fp8-hybrid\"\n";

#[test]
fn training_leaves_a_report_and_what_it_shows() {
    let folder = Folder::new();
    let config = folder.write("run.toml", TINY.as_bytes());
    let run = folder.path("run");
    let [config, run_name] = [&config, &run].map(|path| path.to_str().unwrap());
    let trained = mantissa(["train", "--config", config, "--out", run_name]);
    assert!(trained.success, "{}", trained.stderr);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("e4m3/tensor") && page.contains(">diverged<"));
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(run.join(name)).unwrap()).unwrap()
    };
    let memory = json("memory.json");
    assert!(memory["peak"].as_u64() > memory["expected"]["activations"].as_u64().map(|x| x / 4));
    assert_eq!(memory["expected"]["copies"][0]["name"], "weights");
    let timing = json("timing.json");
    assert_eq!(timing["steps"], 4);
    for part in ["data", "forward", "backward", "update"] {
        assert!(timing["seconds"][part].as_f64() > Some(0.0), "{timing}");
    }

    let out = folder.path("page.html");
    let report = ["report", run_name, "-o", out.to_str().unwrap()];
    assert_eq!(
        mantissa(report).stdout,
        format!("1 run in {}\n", out.display())
    );
    mantissa(report).fails_naming(&["page.html", "--force"]);
    assert!(mantissa([&report[..], &["--force"]].concat()).success);

    let data = mantissa(["report", run_name, "--json"]).json();
    assert_eq!(data["runs"][0]["history"]["end"], 4);
    assert_eq!(data["groups"][0]["runs"], serde_json::json!([0]));

    // A line that cannot be read is named, and the rest is shown.
    let log = fs::read_to_string(run.join("log.jsonl")).unwrap();
    fs::write(run.join("log.jsonl"), format!("broken\n{log}")).unwrap();
    let warned = mantissa([&report[..], &["--force"]].concat());
    assert!(
        warned.success && warned.stderr.contains("line 1 of log.jsonl"),
        "{}",
        warned.stderr
    );
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = Folder::new();
    let file = folder.write("file", b"");
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    let out = folder.path("report.html");
    for command in ["report", "serve"] {
        let run = |path: &std::path::Path| {
            let mut arguments = vec![command, path.to_str().unwrap()];
            if command == "report" {
                arguments.extend(["-o", out.to_str().unwrap()]);
            }
            mantissa(arguments)
        };
        run(&empty).fails_naming(&["empty", "holds no run", "--out"]);
        run(&file).fails_naming(&["file", "folder of a run"]);
        run(&folder.path("nothing")).fails_naming(&["nothing", "cannot read"]);
    }
    assert_eq!(folder.names(), ["empty", "file"]);
}

#[test]
fn a_server_answers_this_machine_alone_and_a_taken_port_is_named() {
    let folder = Folder::new();
    let run = folder.path("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("config.toml"), TINY).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let serve = |port: &str| {
        [
            "serve".to_owned(),
            run.display().to_string(),
            format!("--port={port}"),
        ]
    };
    mantissa(serve(&port)).fails_naming(&[&format!("port {port}"), "--port"]);

    let mut server = Command::new(env!("CARGO_BIN_EXE_mantissa"))
        .args(serve("0"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let address = line
        .strip_prefix("http://")
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let get = |path: &str, host: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let page = get("/", address);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("connect-src 'self'"));
    let news = get("/news?since=0", address);
    let (_, body) = news.split_once("\r\n\r\n").unwrap();
    let created = body.split_once("\"created\":").unwrap().1;
    let created = created.split(',').next().unwrap();
    assert!(get(&format!("/news?since={created}"), address).starts_with("HTTP/1.1 204"));
    assert!(get("/../Cargo.toml", address).starts_with("HTTP/1.1 404"));
    assert!(get("/", "elsewhere.example").starts_with("HTTP/1.1 403"));
    server.kill().unwrap();
    server.wait().unwrap();
}
