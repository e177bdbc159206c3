//! Owns where NCCL's library may lie on this machine; never loads it.
//!
//! cudarc, through which CubeCL would load it, asks for `libnccl.so` and names with versions of CUDA. What a driver
//! or pip installs is called `libnccl.so.2`, which is none of these, so the library is searched for here and loaded
//! by path.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::device::toolkit::Surroundings;

/// Variable with the library's path, or the folder it is in; nothing else is tried then.
pub const LIBRARY_VARIABLE: &str = "JAZARI_NCCL_LIBRARY";
/// Names that the loader looks up itself (LD_LIBRARY_PATH, the system's folders).
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// Folders under a root that hold libraries.
const FOLDERS: [&str; 4] = ["lib", "lib64", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];

/// Places to look in, taken from the environment once so that tests can set their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// [`LIBRARY_VARIABLE`], where it is set.
    chosen: Option<PathBuf>,
    /// Roots that may hold it, best first.
    roots: Vec<PathBuf>,
}

impl Places {
    /// What this process sees.
    pub(super) fn from_env() -> Self {
        let mut places = Self::new(&|key| env::var_os(key), &Surroundings::from_env());
        places.roots.extend(["/usr/local/nccl", "/opt/nccl"].map(PathBuf::from));
        places
    }

    fn new(var: &dyn Fn(&str) -> Option<OsString>, around: &Surroundings) -> Self {
        let set = |key| var(key).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut roots: Vec<PathBuf> = ["NCCL_HOME", "NCCL_ROOT", "CONDA_PREFIX"].into_iter().filter_map(set).collect();
        roots.extend(around.pip_folders());
        roots.extend(around.root().map(Path::to_owned));
        roots.extend(around.system_roots.iter().cloned());
        Self { chosen: set(LIBRARY_VARIABLE), roots }
    }

    /// Only this one.
    #[cfg(test)]
    pub(super) fn chosen(path: PathBuf) -> Self {
        Self { chosen: Some(path), roots: Vec::new() }
    }

    /// What to load, in this order: names without a folder are the loader's to find.
    pub(super) fn candidates(&self) -> Vec<PathBuf> {
        if let Some(chosen) = &self.chosen {
            return if chosen.is_dir() { libraries_in(chosen) } else { vec![chosen.clone()] };
        }
        let mut found: Vec<PathBuf> = NAMES.map(PathBuf::from).into();
        for folder in self.roots.iter().flat_map(|root| FOLDERS.map(|folder| root.join(folder))) {
            for path in libraries_in(&folder) {
                if !found.contains(&path) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// The error when none could be loaded; `tried` says why, in the order of [`Places::candidates`].
    pub(super) fn missing(&self, tried: Vec<String>) -> NcclMissing {
        match &self.chosen {
            Some(path) => NcclMissing::Chosen { path: path.clone(), tried: tried.join("; ") },
            None => NcclMissing::Anywhere { tried: tried.join("; ") },
        }
    }
}

/// Files in a folder that may be the library, shortest name first; its plug-ins (`libnccl-net.so`) are not.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_library = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name == "libnccl.so" || name.starts_with("libnccl.so.2"))
    };
    let mut found: Vec<PathBuf> = entries.filter(is_library).collect();
    found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    found
}

/// Why there is no NCCL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NcclMissing {
    /// The user named a library, and it cannot be loaded.
    #[error(
        "{LIBRARY_VARIABLE}={} cannot be loaded ({}); name the file `libnccl.so.2` or its folder, or unset the variable",
        .path.display(), if .tried.is_empty() { "the folder holds no libnccl.so" } else { .tried.as_str() }
    )]
    Chosen {
        /// What was named.
        path: PathBuf,
        /// What the loader said.
        tried: String,
    },
    /// It was found nowhere.
    #[error(
        "NCCL was not found ({tried}); install it (Debian, Ubuntu with NVIDIA's repository: package `libnccl2`; in a \
         Python environment: `pip install nvidia-nccl-cu13`, or `-cu12` for CUDA 12), or set {LIBRARY_VARIABLE} to the \
         path of `libnccl.so.2`"
    )]
    Anywhere {
        /// What the loader said.
        tried: String,
    },
    /// It is not what it seems.
    #[error("{} is no NCCL that this program can use: {reason}; install NCCL 2.18 or newer", .path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn place(path: &Path) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        path.to_owned()
    }

    fn names() -> Vec<PathBuf> {
        NAMES.map(PathBuf::from).into()
    }

    #[test]
    fn the_loader_comes_first_then_pip_then_toolkits() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("lib/python3.12/site-packages");
        let pip = place(&site.join("nvidia/nccl/lib/libnccl.so.2"));
        place(&site.join("nvidia/nccl/lib/libnccl-net.so"));
        place(&site.join("nvidia/nccl/lib/libnccl.so.1"));
        let full = place(&dir.path().join("cuda/lib64/libnccl.so.2.28.9"));
        let link = place(&dir.path().join("cuda/lib64/libnccl.so.2"));
        let conda = place(&dir.path().join("conda/lib/libnccl.so.2"));
        let around = Surroundings {
            site_packages: vec![site],
            system_roots: vec![dir.path().join("cuda")],
            ..Surroundings::default()
        };
        let var = |key: &str| (key == "CONDA_PREFIX").then(|| dir.path().join("conda").into_os_string());
        let expected = [names(), vec![conda, pip, link, full]].concat();
        assert_eq!(Places::new(&var, &around).candidates(), expected);
        assert_eq!(Places::new(&|_| None, &Surroundings::default()).candidates(), names());
    }

    #[test]
    fn what_the_user_names_is_all_that_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let file = place(&dir.path().join("mine/libnccl.so.2"));
        let chosen = |path: &Path| {
            let path = path.as_os_str().to_owned();
            Places::new(&move |key| (key == LIBRARY_VARIABLE).then(|| path.clone()), &Surroundings::default())
        };
        assert_eq!(chosen(&file).candidates(), std::slice::from_ref(&file));
        assert_eq!(chosen(file.parent().unwrap()).candidates(), [file]);
        let absent = chosen(Path::new("/nowhere/libnccl.so.2"));
        assert_eq!(absent.candidates(), [PathBuf::from("/nowhere/libnccl.so.2")]);
        let message = absent.missing(vec!["no such file".into()]).to_string();
        assert!(message.starts_with("JAZARI_NCCL_LIBRARY=/nowhere/libnccl.so.2 cannot be loaded"), "{message}");
        let empty = chosen(dir.path()).missing(Vec::new()).to_string();
        assert!(empty.contains("the folder holds no libnccl.so"), "{empty}");
    }

    #[test]
    fn without_it_the_message_says_what_to_install() {
        let message = Places::default().missing(vec!["libnccl.so.2: not found".into()]).to_string();
        assert!(message.contains("pip install nvidia-nccl-cu13") && message.contains("`libnccl2`"), "{message}");
    }
}
