//! A real Chromium, driven over `tests/tools/browser.mjs`.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

pub struct Browser {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// The path that the pages of its console session live under.
    pub base: String,
}

impl Browser {
    pub fn open() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let tools = root.join("target/tools/node");
        assert!(tools.exists(), "run `.ci/install test` first: it installs playwright");
        let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
            .into_iter()
            .find(|path| PathBuf::from(path).exists())
            .expect("a Chromium");
        let mut child = Command::new("node")
            .arg(root.join("tests/tools/browser.mjs"))
            .arg(tools)
            .arg(chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout, base: String::new() }
    }

    fn tell(&mut self, command: Value) -> Value {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("the browser died: {line}"));
        if let Some(error) = answer["error"].as_str() {
            panic!("{error}");
        }
        answer["ok"].take()
    }

    /// A browser that has never been anywhere.
    pub fn fresh(&mut self, how: Value) {
        let mut command = how;
        command["command"] = json!("fresh");
        self.base.clear();
        self.tell(command);
    }

    pub fn goto(&mut self, url: &str) -> u64 {
        self.tell(json!({"command": "goto", "url": url})).as_u64().unwrap()
    }

    pub fn reload(&mut self) -> u64 {
        self.tell(json!({"command": "reload"})).as_u64().unwrap()
    }

    pub fn click(&mut self, selector: &str) {
        self.tell(json!({"command": "click", "selector": selector}));
    }

    /// Presses a button that leads to another page; the status of that page.
    pub fn submit(&mut self, selector: &str) -> u64 {
        self.tell(json!({"command": "submit", "selector": selector})).as_u64().unwrap()
    }

    pub fn fill(&mut self, selector: &str, text: &str) {
        self.tell(json!({"command": "fill", "selector": selector, "text": text}));
    }

    pub fn press(&mut self, key: &str) {
        self.tell(json!({"command": "press", "key": key}));
    }

    pub fn text(&mut self, selector: &str) -> String {
        self.string(json!({"command": "text", "selector": selector}))
    }

    /// The text as it is in the page, whatever is drawn of it.
    pub fn content(&mut self, selector: &str) -> String {
        self.string(json!({"command": "content", "selector": selector}))
    }

    pub fn texts(&mut self, selector: &str) -> Vec<String> {
        self.strings(json!({"command": "texts", "selector": selector}))
    }

    pub fn value(&mut self, selector: &str) -> String {
        self.string(json!({"command": "value", "selector": selector}))
    }

    pub fn attribute(&mut self, selector: &str, name: &str) -> String {
        self.string(json!({"command": "attribute", "selector": selector, "name": name}))
    }

    pub fn count(&mut self, selector: &str) -> u64 {
        self.tell(json!({"command": "count", "selector": selector})).as_u64().unwrap()
    }

    pub fn wait(&mut self, selector: &str) {
        self.tell(json!({"command": "wait", "selector": selector}));
    }

    pub fn gone(&mut self, selector: &str) {
        self.tell(json!({"command": "gone", "selector": selector}));
    }

    pub fn evaluate(&mut self, script: &str) -> Value {
        self.tell(json!({"command": "evaluate", "script": script}))
    }

    pub fn url(&mut self) -> String {
        self.string(json!({"command": "url"}))
    }

    /// Notes the session that the page is in; later addresses are made with it.
    pub fn note_session(&mut self) {
        let path = url::Url::parse(&self.url()).unwrap().path().to_owned();
        let segments: Vec<&str> = path.split('/').collect();
        assert!(segments[1] == "s" && segments[2].len() == 32, "not in a session: {path}");
        self.base = format!("/s/{}", segments[2]);
    }

    pub fn title(&mut self) -> String {
        self.string(json!({"command": "title"}))
    }

    pub fn cookies(&mut self) -> Value {
        self.tell(json!({"command": "cookies"}))
    }

    /// The errors that the browser has logged since the last call.
    pub fn complaints(&mut self) -> Vec<String> {
        self.strings(json!({"command": "complaints"}))
    }

    pub fn screenshot(&mut self, path: &str, full: bool) {
        self.tell(json!({"command": "screenshot", "path": path, "full": full}));
    }

    /// What axe-core finds wrong with the page.
    pub fn axe(&mut self) -> Vec<String> {
        self.strings(json!({"command": "axe"}))
    }

    fn string(&mut self, command: Value) -> String {
        self.tell(command).as_str().unwrap_or_default().to_owned()
    }

    fn strings(&mut self, command: Value) -> Vec<String> {
        let answer = self.tell(command);
        answer.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
