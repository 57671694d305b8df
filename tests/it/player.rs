//! Exported asciicasts play in the asciinema player, in a real browser, when `KUSTODY_PLAYER` names the player's bundle and
//! `chromium` is installed (`tests/tools.sh` sees to both); says so when there is none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::evidence::text;
use crate::recordings::shell;

/// A page that plays a cast to its end and then tells the server what the player shows.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><div id="player"></div><script src="/player.js"></script><script>
const place = document.getElementById("player"), tell = (text) => fetch("/result", { method: "POST", body: text });
window.onerror = (message) => tell("error: " + message);
const player = AsciinemaPlayer.create("/cast", place, { autoPlay: true, speed: 20, fit: false });
let looks = 0;
const look = () => {
  const shown = place.querySelector(".ap-term-text").innerText;
  if (shown.includes("€") || looks++ > 200) { tell(shown); } else { setTimeout(look, 50); }
};
player.addEventListener("ended", look);
</script>"#;

/// Serves the page, the player and a cast, and gives what the page tells.
fn serve(listener: TcpListener, player: Vec<u8>, cast: Vec<u8>) -> mpsc::Receiver<String> {
    let (told, tells) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (told, player, cast) = (told.clone(), player.clone(), cast.clone());
            std::thread::spawn(move || answer(stream, &player, &cast, &told));
        }
    });
    tells
}

fn answer(mut stream: TcpStream, player: &[u8], cast: &[u8], told: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let head: Vec<String> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let head = head.join("\n").to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let mut sent = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut sent).unwrap();
    let (kind, body) = match head.split(' ').nth(1).unwrap_or_default() {
        "/" => ("text/html; charset=utf-8", PAGE.as_bytes()),
        "/player.js" => ("text/javascript", player),
        "/cast" => ("text/plain; charset=utf-8", cast),
        "/result" => {
            told.send(text(&sent)).ok();
            ("text/plain", &b"thanks"[..])
        }
        _ => ("text/plain", &b""[..]),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A browser that was ended reads no more.
    stream.write_all(&[head.as_bytes(), body].concat()).ok();
}

/// A browser that ends with the test.
struct Browser(Child);

impl Browser {
    fn open(url: &str, profile: &Path) -> Self {
        let mut command = Command::new("chromium");
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu"])
            .arg(format!("--user-data-dir={}", profile.display()));
        Browser(command.arg(url).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to end, it takes its children along.
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_asciicasts_play_in_the_asciinema_player() {
    let Ok(player) = std::env::var("KUSTODY_PLAYER") else {
        eprintln!("not run: KUSTODY_PLAYER does not name the asciinema player's bundle (tests/tools.sh)");
        return;
    };
    let player = std::fs::read(player).unwrap();
    let evidence = shell().await;
    let id = evidence.session.to_string();
    for version in ["asciicast-v2", "asciicast-v3"] {
        let cast = evidence.run(&["export", &id, "--format", version]).stdout;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let tells = serve(listener, player.clone(), cast);
        let browser = Browser::open(&url, &evidence.dir.path().join(version));
        let shown = tells.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(browser);
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(words, ["$", "ls", "file", "€"], "{version}");
    }
}
