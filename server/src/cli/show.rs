//! `dunlin config check` and `dunlin config show`

use super::args::ServeArgs;
use super::error::CliError;
use super::out::Out;
use crate::config;

/// Says that the configuration is valid, and what in it has no effect.
pub(super) fn check(args: &ServeArgs, out: &mut Out) -> Result<(), CliError> {
    let loaded = config::load(&args.sources())?;
    for warning in &loaded.warnings {
        out.complain(format_args!("warning: {warning}"));
    }
    let apps = loaded.config.apps.len();
    out.line(format_args!(
        "the configuration is valid: {apps} {}",
        if apps == 1 { "app" } else { "apps" }
    ));
    Ok(())
}

/// Prints every option as TOML, with a comment that says where its value came from. But for the secrets the output is a
/// valid configuration file.
pub(super) fn show(args: &ServeArgs, out: &mut Out) -> Result<(), CliError> {
    let loaded = config::load(&args.sources())?;
    let mut table = None;
    for option in &loaded.shown {
        if table != Some(&option.table) {
            if table.is_some() {
                out.line("");
            }
            out.line(header(&option.table));
            table = Some(&option.table);
        }
        let setting = format!("{} = {}", option.key, option.value);
        out.line(format_args!("{setting:<48}# {}", option.origin));
    }
    Ok(())
}

/// The table's head in TOML: `apps[0].limits` is the limits of the entry of `[[apps]]` above it.
fn header(table: &str) -> String {
    match table.strip_prefix("apps[").and_then(|rest| rest.split_once(']')) {
        Some((_, "")) => "[[apps]]".to_owned(),
        Some((_, below)) => format!("[apps{below}]"),
        None => format!("[{table}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_heads_that_a_file_would_have() {
        for (table, head) in [
            ("server", "[server]"),
            ("app_defaults.limits", "[app_defaults.limits]"),
            ("apps[0]", "[[apps]]"),
            ("apps[12].limits", "[apps.limits]"),
        ] {
            assert_eq!(header(table), head);
        }
    }
}
