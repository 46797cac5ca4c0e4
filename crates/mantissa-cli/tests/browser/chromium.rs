//! Headless Chromium, driven through the pipes of its DevTools protocol.
//!
//! A pipe needs no library: client crates speak WebSocket, and theirs turns on features of `bytes` that would build Burn again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// One page of a browser of its own.
pub struct Page {
    process: Child,
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    session: Option<String>,
    last_id: u64,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Page {
    /// Starts a browser; `CHROMIUM` names another than `chromium`.
    pub fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        // The protocol's pipes are the file descriptors 3 and 4.
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec \"$@\" 3<&0 4>&1 0</dev/null 1>&2",
                "sh",
                &browser,
            ])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut page = Self {
            commands: process.stdin.take().unwrap(),
            messages: BufReader::new(process.stdout.take().unwrap()),
            process,
            session: None,
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", attach);
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.call("Page.navigate", json!({ "url": url }));
        // The empty page before it is complete too.
        page.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'");
        page.settle();
        page
    }

    /// Sends a command and returns its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).unwrap();
        loop {
            let mut message = Vec::new();
            self.messages.read_until(0, &mut message).unwrap();
            assert_eq!(message.pop(), Some(0), "the browser has ended");
            let mut message: Value = serde_json::from_slice(&message).unwrap();
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// The value of an expression of JavaScript.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut result = self.call("Runtime.evaluate", parameters);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].take()
    }

    /// Its text.
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().map_or(value.to_string(), str::to_owned)
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.value(expression) != true {
            assert!(Instant::now() < end, "never came: {expression}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key, such as `ArrowRight`, where the focus is.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => panic!("the code of {other} is not known here"),
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Waits until what was changed has been drawn: only then do places on the screen hold still.
    fn settle(&mut self) {
        self.value(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(0), 50))))",
        );
    }

    /// Moves the pointer to the middle of an element, and clicks if told to.
    pub fn point_at(&mut self, element: &str, clicks: bool) {
        self.value(&format!(
            "{element}.scrollIntoView({{ block: 'center', behavior: 'instant' }})"
        ));
        self.settle();
        let place = self.value(&format!(
            "(() => {{ const box = {element}.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        let kinds: &[&str] = match clicks {
            true => &["mouseMoved", "mousePressed", "mouseReleased"],
            false => &["mouseMoved"],
        };
        for kind in kinds {
            let button = if *kind == "mouseMoved" {
                "none"
            } else {
                "left"
            };
            let event = json!({ "type": kind, "x": place[0], "y": place[1], "button": button, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// What the console was told, exceptions, and every request so far that is neither a file nor data.
    pub fn complaints(&mut self) -> Vec<String> {
        // Events that belong to what was done before come first.
        self.value("0");
        let of_event = |event: &Value| {
            let parameters = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled" => {
                    Some(parameters.to_string())
                }
                "Network.requestWillBeSent" => {
                    let url = parameters["request"]["url"].as_str()?;
                    let local = url.starts_with("file:") || url.starts_with("data:");
                    (!local).then(|| url.to_owned())
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(of_event).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // ignored: it may have ended by itself
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
