//! The checked-in files are what the code writes. `KUSTODY_UPDATE_GOLDEN=1` writes them anew.

use kustody::command::generate::{What, files};
use std::path::Path;

#[test]
fn checked_in_files_are_what_the_code_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let update = std::env::var_os("KUSTODY_UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let all = [What::Manifests, What::AdmitSuspended, What::Schema].into_iter().flat_map(|what| files(what).unwrap());
    for (name, text) in all {
        let path = root.join(name);
        if update {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(there, text, "{name} differs: run with KUSTODY_UPDATE_GOLDEN=1 and look at the change");
    }
}
