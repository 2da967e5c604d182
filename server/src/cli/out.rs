//! Where commands write. The rest of the crate logs instead.

use std::fmt::Display;
use std::io::Write;

/// Standard output and standard error, or two buffers in tests.
pub(super) struct Out {
    results: Box<dyn Write>,
    notes: Box<dyn Write>,
}

impl Out {
    pub(super) fn standard() -> Self {
        Self {
            results: Box::new(std::io::stdout()),
            notes: Box::new(std::io::stderr()),
        }
    }

    /// A line of the result, at once on its way: the reader may be a pipe that waits for it.
    pub(super) fn line(&mut self, line: impl Display) {
        write_line(&mut self.results, line);
    }

    /// A line that is no part of the result.
    pub(super) fn complain(&mut self, line: impl Display) {
        write_line(&mut self.notes, line);
    }
}

fn write_line(writer: &mut dyn Write, line: impl Display) {
    // Nobody is left to hear of a closed pipe; the command ends by itself or by SIGPIPE's default for its reader.
    drop(writeln!(writer, "{}", line.to_string().trim_end()).and_then(|()| writer.flush()));
}
