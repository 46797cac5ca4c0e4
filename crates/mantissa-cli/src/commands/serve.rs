//! `mantissa serve`: the report of runs that go on.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use tiny_http::{Header, Method, Request, Response, Server};

use crate::error::Error;
use crate::report::{self, Reader, Report};
use crate::terminal;

/// Arguments of `mantissa serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The page is that of `mantissa report`, and follows the runs while they train: it asks every two seconds for what \
                  is new, and keeps what is selected and where it is scrolled to. Only this machine can reach it. Ctrl-C ends \
                  it; the runs do not notice.\n\nExamples:\n  \
                  mantissa serve runs/fp8\n  \
                  mantissa serve runs/study --port 0                   any free port"
)]
pub struct Args {
    /// Folders of runs, or of a study's
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Port to listen at; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 7373)]
    port: u16,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let mut live = Live::new(Reader::new(&args.runs))?;
    let failed = |source| Error::Listen {
        port: args.port,
        source,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let server = Server::from_listener(listener, None)
        .map_err(|error| failed(io::Error::other(error.to_string())))?;
    terminal::print(&format!("http://{address}/ (Ctrl-C ends it)\n"))?;
    for request in server.incoming_requests() {
        let (status, kind, body) = live.answer(&request);
        let header = |name: &str, value: &str| {
            Header::from_bytes(name, value).expect("names and values are constants of ASCII")
        };
        let response = Response::from_string(body)
            .with_status_code(status)
            .with_header(header("Content-Type", kind))
            .with_header(header("Cache-Control", "no-store"));
        if let Err(error) = request.respond(response) {
            tracing::debug!(%error, "the browser went away");
        }
    }
    Ok(())
}

/// The report as of the last change.
struct Live {
    reader: Reader,
    stamp: report::Stamp,
    report: Report,
}

impl Live {
    fn new(mut reader: Reader) -> Result<Self, Error> {
        let stamp = reader.stamp()?;
        let report = reader.read()?;
        Ok(Self {
            reader,
            stamp,
            report,
        })
    }

    /// Reads anew what has changed.
    fn refresh(&mut self) -> Result<(), Error> {
        let stamp = self.reader.stamp()?;
        if stamp != self.stamp {
            self.report = self.reader.read()?;
            self.stamp = stamp;
        }
        Ok(())
    }

    /// Status, type and body.
    fn answer(&mut self, request: &Request) -> (u16, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        const HTML: &str = "text/html; charset=utf-8";
        const JSON: &str = "application/json";
        // A name that somebody else made point here is not ours.
        let host = request
            .headers()
            .iter()
            .find(|header| header.field.equiv("Host"));
        let host = host.map_or("", |header| header.value.as_str());
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if !["127.0.0.1", "localhost"].contains(&name) {
            let body = "this server answers to 127.0.0.1 and localhost\n".to_owned();
            return (403, TEXT, body);
        }
        if *request.method() != Method::Get {
            return (405, TEXT, "only GET\n".to_owned());
        }
        let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
        let fresh = match path {
            "/" | "/news" => self.refresh(),
            _ => return (404, TEXT, "the report is at /\n".to_owned()),
        };
        if let Err(error) = fresh {
            return (500, TEXT, format!("{error}\n"));
        }
        let known = query.strip_prefix("since=");
        match path {
            "/" => (200, HTML, report::render_live(&self.report)),
            _ if known == Some(&self.report.created.to_string()) => (204, JSON, String::new()),
            _ => (200, JSON, report::update(&self.report)),
        }
    }
}
