//! Owns where the CUDA run-time compiler (NVRTC) and its headers lie on this machine; never loads or runs them.
//!
//! CubeCL's C++ backend compiles kernels on the machine that runs them: NVRTC reads headers from `$CUDA_PATH/include`,
//! `/usr/local/cuda/include`, `/opt/cuda/include` or `/usr/include` (only if `/usr/bin/nvcc` exists), in that order,
//! and takes the first of these roots that exists even when it holds no headers. Everything is therefore looked up
//! here first, so that a gap becomes a message that says what to install.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Headers that every kernel in bf16 or f16 or with matrix instructions includes.
const HEADERS: [&str; 3] = ["cuda_fp16.h", "cuda_bf16.h", "mma.h"];
/// Header of the C++ core libraries that kernels with TMA and asynchronous copies include.
const BARRIER: &str = "cuda/barrier";

/// Places to look in, taken from the environment once so that tests can set their own.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `CUDA_PATH`, where it is set.
    pub cuda_path: Option<PathBuf>,
    /// Roots of a system-wide toolkit, in the order CubeCL tries them.
    pub system_roots: Vec<PathBuf>,
    /// Folders that hold Python packages, each perhaps with an `nvidia` folder from pip.
    pub site_packages: Vec<PathBuf>,
}

impl Surroundings {
    /// What this process sees.
    pub fn from_env() -> Self {
        let mut system_roots: Vec<PathBuf> = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from).into();
        system_roots.retain(|root| root.exists());
        if Path::new("/usr/bin/nvcc").exists() {
            system_roots.push("/usr".into());
        }
        let cuda_path = env::var_os("CUDA_PATH").map(PathBuf::from);
        Self { cuda_path, system_roots, site_packages: site_packages(|key| env::var_os(key)) }
    }

    /// The root from which CubeCL will take headers; `None` where its own search would end in a panic.
    pub fn root(&self) -> Option<&Path> {
        self.cuda_path.as_deref().or_else(|| self.system_roots.first().map(PathBuf::as_path))
    }

    /// Folders of a toolkit that pip installed (packages `nvidia-cuda-runtime`, `nvidia-cuda-nvrtc`, ...).
    pub(super) fn pip_folders(&self) -> Vec<PathBuf> {
        self.site_packages.iter().flat_map(|site| subfolders(&site.join("nvidia"))).collect()
    }
}

/// Package folders of the Python environment that is active, of those on `PATH`, and of the user.
fn site_packages(var: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut on_path = var("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    on_path.retain(|bin| bin.join("python3").exists());
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(|key| var(key).map(PathBuf::from))
        .chain(on_path.iter().filter_map(|bin| bin.parent().map(Path::to_owned)))
        .chain(var("HOME").map(|home| PathBuf::from(home).join(".local")));
    let mut found: Vec<PathBuf> = Vec::new();
    for lib in prefixes.map(|prefix| prefix.join("lib")) {
        for python in subfolders(&lib) {
            for packages in ["site-packages", "dist-packages"].map(|name| python.join(name)) {
                if packages.join("nvidia").is_dir() && !found.contains(&packages) {
                    found.push(packages);
                }
            }
        }
    }
    found
}

/// Folders in `folder`, sorted by name so that the same machine always gives the same answer.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// Where the headers are, once they are known to be complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The root whose `include` folder NVRTC reads.
    pub root: PathBuf,
    /// Whether the headers that TMA and asynchronous copies need are there as well.
    pub has_barrier: bool,
}

/// Why kernels could not be compiled: no complete set of headers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadersMissing {
    /// There is no toolkit where CubeCL looks.
    #[error(
        "CUDA headers were not found: CUDA_PATH is not set and neither /usr/local/cuda nor /opt/cuda exists; {}",
        advice(.elsewhere)
    )]
    NoRoot {
        /// A folder that holds them nonetheless.
        elsewhere: Option<PathBuf>,
    },
    /// There is one, without the headers.
    #[error("CUDA headers are incomplete: {}/include has no {header}; {}", .root.display(), advice(.elsewhere))]
    Incomplete {
        /// The root that CubeCL will use.
        root: PathBuf,
        /// The first header that is not there.
        header: &'static str,
        /// Another folder that holds them.
        elsewhere: Option<PathBuf>,
    },
}

fn advice(elsewhere: &Option<PathBuf>) -> String {
    match elsewhere {
        Some(root) => format!("they are in {0}: run again with CUDA_PATH={0}", root.display()),
        None => "install the CUDA toolkit (12.8 or newer), or in a Python environment `pip install \
                 nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-cccl nvidia-cuda-crt`, and set CUDA_PATH \
                 to the folder that holds `include`"
            .to_owned(),
    }
}

fn missing_header(root: &Path) -> Option<&'static str> {
    HEADERS.into_iter().find(|header| !root.join("include").join(header).is_file())
}

/// Finds the headers that NVRTC will read.
///
/// # Errors
/// [`HeadersMissing`], with the folder to set `CUDA_PATH` to where one is found elsewhere.
pub fn find_headers(around: &Surroundings) -> Result<Headers, HeadersMissing> {
    let elsewhere = || {
        let mut candidates = around.system_roots.clone();
        candidates.extend(around.pip_folders());
        candidates.into_iter().find(|root| missing_header(root).is_none())
    };
    let Some(root) = around.root() else {
        return Err(HeadersMissing::NoRoot { elsewhere: elsewhere() });
    };
    if let Some(header) = missing_header(root) {
        return Err(HeadersMissing::Incomplete { root: root.to_owned(), header, elsewhere: elsewhere() });
    }
    let include = root.join("include");
    let has_barrier = include.join(BARRIER).is_file() || include.join("cccl").join(BARRIER).is_file();
    Ok(Headers { root: root.to_owned(), has_barrier })
}

/// Files that may be NVRTC itself (`libnvrtc.so.13` and the like), newest version first within a folder: in the
/// toolkit that headers come from, in the others, and in pip's packages.
pub fn nvrtc_libraries(around: &Surroundings) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = around.root().map(Path::to_owned).into_iter().collect();
    roots.extend(around.system_roots.iter().cloned());
    roots.extend(around.pip_folders());
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in roots.iter().flat_map(|root| ["lib64", "lib", "targets/x86_64-linux/lib"].map(|lib| root.join(lib))) {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut here: Vec<PathBuf> = entries.filter(|path| is_nvrtc(path)).collect();
        here.sort();
        here.reverse();
        for path in here {
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// `libnvrtc.so.12`, not `libnvrtc-builtins.so.12.8` nor the variants for other uses (`libnvrtc.alt.so.12`).
fn is_nvrtc(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("libnvrtc.so."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::fs;

    fn toolkit(root: &Path, headers: &[&str], libraries: &[&str]) {
        for (folder, names) in [("include", headers), ("lib", libraries)] {
            for name in names {
                let path = root.join(folder).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
        }
    }

    #[test]
    fn a_machine_without_a_toolkit_hears_what_to_install() {
        let message = find_headers(&Surroundings::default()).unwrap_err().to_string();
        assert!(message.contains("CUDA_PATH is not set"), "{message}");
        assert!(message.contains("pip install nvidia-cuda-nvrtc nvidia-cuda-runtime"), "{message}");
        assert!(nvrtc_libraries(&Surroundings::default()).is_empty());
    }

    #[test]
    fn headers_of_pip_are_named_not_assumed() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("lib/python3.12/site-packages");
        let pip = site.join("nvidia/cu13");
        toolkit(&pip, &HEADERS, &["libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc.alt.so.13"]);
        let around = Surroundings {
            site_packages: site_packages(|key| (key == "VIRTUAL_ENV").then(|| dir.path().into())),
            ..Surroundings::default()
        };
        assert_eq!(around.site_packages, [site]);
        let message = find_headers(&around).unwrap_err().to_string();
        assert!(message.ends_with(&format!("run again with CUDA_PATH={}", pip.display())), "{message}");
        assert_eq!(nvrtc_libraries(&around), [pip.join("lib/libnvrtc.so.13")]);
    }

    #[test]
    fn cuda_path_wins_and_its_gaps_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (chosen, system) = (dir.path().join("chosen"), dir.path().join("system"));
        toolkit(&chosen, &["cuda_fp16.h"], &[]);
        toolkit(
            &system,
            &[HEADERS.as_slice(), &["cccl/cuda/barrier"]].concat(),
            &["libnvrtc.so.12.8.93", "libnvrtc.so.12"],
        );
        let mut around = Surroundings {
            cuda_path: Some(chosen.clone()),
            system_roots: vec![system.clone()],
            ..Surroundings::default()
        };
        let error = find_headers(&around).unwrap_err();
        let expected =
            HeadersMissing::Incomplete { root: chosen, header: "cuda_bf16.h", elsewhere: Some(system.clone()) };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("has no cuda_bf16.h"), "{error}");
        around.cuda_path = None;
        assert_eq!(find_headers(&around), Ok(Headers { root: system.clone(), has_barrier: true }));
        assert_eq!(nvrtc_libraries(&around).first(), Some(&system.join("lib/libnvrtc.so.12.8.93")));
    }
}
