//! What the cargo features for GPUs bring in and what they must never bring in, read from cargo's own resolution, so
//! that it holds on machines that compile no GPU code.

use std::process::Command;

/// Lines of `cargo tree` for the trainer, without indentation.
fn tree(arguments: &[&str]) -> Vec<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--prefix", "none", "-p", "trainer"])
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn holds(lines: &[String], start: &str) -> bool {
    lines.iter().any(|line| line.starts_with(start))
}

#[test]
fn cuda_compiles_kernels_with_the_cpp_backend() {
    let features = tree(&["--features", "cuda", "-e", "features", "-i", "cubecl-cuda"]);
    assert!(
        holds(&features, "cubecl-cuda feature \"cpp\""),
        "feature `cuda` no longer selects CubeCL's C++ backend: kernels would go to LLVM, which is a stand-in here"
    );
}

#[test]
fn rocm_compiles_kernels_with_the_cpp_backend() {
    let features = tree(&["--features", "rocm", "-e", "features", "-i", "cubecl-hip"]);
    assert!(holds(&features, "cubecl-hip feature \"cpp\""), "feature `rocm` no longer selects CubeCL's C++ backend");
}

#[test]
fn no_gpu_build_downloads_an_llvm() {
    let packages = tree(&["--features", "cuda,rocm,wgpu", "-e", "normal,build"]);
    assert!(holds(&packages, "cubecl-cuda v0.11.3") && holds(&packages, "cubecl-hip v0.11.3"));
    let stand_in = packages.iter().find(|line| line.starts_with("cubecl-llvm v")).expect("cubecl-cuda names it");
    assert!(stand_in.contains("patches/cubecl-llvm"), "{stand_in}");
    for downloads in ["tracel-llvm-bundler", "llvm-sys", "cubecl-cpu"] {
        assert!(!holds(&packages, downloads), "{downloads} is in the build: its build script needs the network");
    }
}

#[test]
fn the_default_build_has_no_gpu_code() {
    let packages = tree(&["-e", "normal,build"]);
    assert!(holds(&packages, "burn-flex v"), "the CPU backend must be there");
    for gpu in
        ["cubecl v", "cubecl-runtime", "cubecl-cuda", "cubecl-hip", "cubecl-wgpu", "cudarc", "wgpu", "burn-fusion"]
    {
        assert!(!holds(&packages, gpu), "{gpu} is in the default build");
    }
}
