//! Where a key or an anchor comes from. What lies beside the ledger can be replaced by whoever can
//! replace the ledger, so it vouches for nothing: a whole other history, with a key and a head file of
//! its own, would verify.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::ledger::anchor::directory_of;
use crate::ledger::key::with_suffix;
use crate::ledger::settings::lock_file;

/// Where the public key of a ledger lies when nobody says: beside it, or where `countersign init` puts
/// it.
#[must_use]
pub fn key_beside(ledger: &Path) -> PathBuf {
    let beside = with_suffix(ledger, "pub");
    let directory = directory_of(ledger);
    let places = [beside.clone(), directory.join("keys/ledger.pub"), directory.join("../keys/ledger.pub")];
    places.into_iter().find(|place| place.exists()).unwrap_or(beside)
}

/// Whether a file lies where the proxy keeps this ledger, its keys and its head files, by whatever name
/// or link it was given: `LEDGER.pub`; `keys/` and `anchors/` in the ledger's folder and in the one
/// above; and where this is the ledger that a proxy writes, not a copy of it, all of its folder and of
/// the one with its configuration.
#[must_use]
pub fn is_beside(ledger: &Path, file: &Path) -> bool {
    let (Ok(ledger), Ok(file)) = (ledger.canonicalize(), file.canonicalize()) else { return true };
    let home = directory_of(&ledger);
    let folders = [Some(home), home.parent()];
    let kept: Vec<PathBuf> =
        folders.iter().flatten().flat_map(|folder| [folder.join("keys"), folder.join("anchors")]).collect();
    if file == with_suffix(&ledger, "pub") || kept.iter().any(|folder| file.starts_with(folder)) {
        return true;
    }
    let is_written_here = lock_file(&ledger).exists();
    let of_the_proxy = |folder: &&Path| *folder == home || folder.join("countersign.toml").exists();
    if is_written_here
        && folders
            .iter()
            .flatten()
            .filter(|folder| of_the_proxy(folder))
            .any(|folder| file.starts_with(folder))
    {
        return true;
    }
    // A hard link is the same file under another name.
    let mut same = kept.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    is_same(&file, &with_suffix(&ledger, "pub")) || same.any(|entry| is_same(&file, &entry.path()))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_a_ledger_is_beside_it_by_whatever_name() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |name: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
            path
        };
        let ledger = write("conf/ledger/countersign.db");
        let (key, head) = (write("conf/keys/ledger.pub"), write("conf/anchors/head"));
        let (own, elsewhere) = (write("conf/ledger/countersign.db.pub"), write("auditor/ledger.pub"));
        let near = write("conf/ledger/copy.pub");
        std::os::unix::fs::symlink(&key, root.join("auditor/link")).unwrap();
        std::fs::hard_link(&head, root.join("auditor/hard")).unwrap();

        for file in [&key, &head, &own, &root.join("auditor/link"), &root.join("auditor/hard")] {
            assert!(is_beside(&ledger, file), "{}", file.display());
        }
        assert!(is_beside(&ledger, &root.join("conf/ledger/../keys/./ledger.pub")));
        assert!(is_beside(&ledger, &root.join("not/there")));
        assert!(!is_beside(&ledger, &elsewhere));
        assert!(!is_beside(&ledger, &near), "an auditor's folder has a copy and a key");
        write("conf/ledger/countersign.db.lock");
        assert!(is_beside(&ledger, &near), "the proxy's folder does not");
        let settings = write("conf/other.pub");
        assert!(!is_beside(&ledger, &settings));
        write("conf/countersign.toml");
        assert!(is_beside(&ledger, &settings));
        assert!(!is_beside(&ledger, &elsewhere));
    }
}
