//! What is made for people: the live view's single frame, completions, manual pages, and errors with a next step.

mod support;

use support::{Folder, Server, gristmill};

fn output(arguments: &[&str]) -> (i32, String, String) {
    let output = gristmill(arguments).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("it exits"), text(output.stdout), text(output.stderr))
}

#[test]
fn top_prints_one_frame_of_a_server_at_work() {
    let folder = Folder::new("people-top");
    let data = folder.0.join("data");
    let server = Server::start(&data, 2);
    let data = data.to_str().expect("a path of text");
    assert_eq!(output(&["app", "load", "loadgen", "--data", data]).0, 0);
    let address = format!("127.0.0.1:{}", server.port());
    let load =
        ["loadgen", "run", "--op", "invoke", "--keys", "2", "--connections", "2", "--secs", "2", "--addr", &address];
    let mut load = gristmill(&load).stdout(std::process::Stdio::null()).spawn().expect("the program runs");
    std::thread::sleep(std::time::Duration::from_millis(700));
    let (status, frame, errors) = output(&["top", "--once", "--interval", "0.5", "--data", data]);
    assert!(load.wait().expect("it ends").success());
    assert_eq!(status, 0, "{errors}");
    assert!(!frame.contains('\u{1b}'), "plain text: {frame}");
    for wanted in ["runs/s", "flush/s", "loadgen/counter.count", "no events since the start"] {
        assert!(frame.contains(wanted), "{wanted} in\n{frame}");
    }
    let handler = frame.lines().find(|line| line.starts_with("loadgen/counter.count")).expect("a row of the handler");
    let runs = handler.split_whitespace().nth(1).expect("a rate");
    assert_ne!(runs, "0", "the handler runs all the time: {handler}");
    let hot: Vec<&str> = frame.lines().skip_while(|line| !line.starts_with("hot keys")).collect();
    assert!(hot.iter().any(|line| line.starts_with("loadgen/counter")), "two keys get everything: {frame}");
}

#[test]
fn top_without_a_terminal_says_what_to_do() {
    let folder = Folder::new("people-terminal");
    let data = folder.0.join("data");
    let _server = Server::start(&data, 1);
    let (status, _, errors) = output(&["top", "--data", data.to_str().expect("a path of text")]);
    assert!(status == 2 && errors.contains("--once"), "{status} {errors}");
    assert_eq!(output(&["top", "--once", "--interval", "0"]).0, 2);
}

#[test]
fn completions_and_manual_pages_know_the_added_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, script, _) = output(&["completions", shell]);
        assert!(status == 0 && script.contains("loadgen") && script.contains("top"), "{shell}");
    }
    assert_eq!(output(&["completions", "dos"]).0, 2);
    let folder = Folder::new("people-man");
    let pages = folder.0.join("man1");
    assert_eq!(output(&["man", pages.to_str().expect("a path of text")]).0, 0);
    for page in ["gristmill.1", "gristmill-top.1", "gristmill-loadgen-run.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
}

#[test]
fn who_finds_no_server_is_told_the_next_step() {
    let (status, _, errors) = output(&["status", "--addr", "127.0.0.1:1"]);
    assert!(status == 69 && errors.contains("127.0.0.1:1") && errors.contains("gristmill serve --data"), "{errors}");
    let (status, _, errors) = output(&["top", "--once", "--data", "/nonexistent"]);
    assert!(status == 69 && errors.contains("gristmill serve --data /nonexistent"), "{errors}");
}
