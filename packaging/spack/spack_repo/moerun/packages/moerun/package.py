import pathlib

from spack_repo.builtin.build_systems.makefile import MakefilePackage

from spack.package import *


class Moerun(MakefilePackage):
    """A batch engine for Mixture-of-Experts language models: one MPI rank per GPU, a file of prompts in, HDF5 and JSONL out."""

    # The checkout that this recipe lies in.
    git = pathlib.Path(__file__).resolve().parents[6].as_uri()

    license("Apache-2.0")

    version("main", branch="main")

    variant("cuda", default=False, description="Run on NVIDIA Hopper GPUs too (compute capability 9.0)")

    # From the oldest version that the Makefile asks for (LEAST) to the newest series that moerun was tested with.
    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("git", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("hdf5@1.10.8:1.10")
    depends_on("yaml-cpp@0.7.0:0.8")
    depends_on("fmt@9.1.0:9")
    depends_on("cli11@2.1.2:2.4", type="build")
    depends_on("nlohmann-json@3.11.2:3.11", type="build")
    depends_on("pcre2@10.42: +jit")
    depends_on("utf8proc@2.6.0:2.9")
    depends_on("openssl@3.0:3")
    depends_on("xxhash@0.8.1:0.8")
    depends_on("zlib-api")
    depends_on("cuda@13.0:13", when="+cuda")
    depends_on("nccl cuda_arch=90", when="+cuda")

    requires("^openmpi@4.1:", when="^[virtuals=mpi] openmpi")
    requires("target=x86_64:", msg="the CPU device is compiled for x86-64 alone")
    conflicts("%gcc@:11", msg="C++20 as moerun uses it needs g++ 12")

    # `make test` installs packages of the system's, which is no part of a build here.
    build_time_test_callbacks = []

    def make_variables(self):
        spec = self.spec
        variables = [f"MPICXX={spec['mpi'].mpicxx}", f"CUDA={int(spec.satisfies('+cuda'))}"]
        if spec.satisfies("+cuda"):
            variables.append(f"NVCC={spec['cuda'].prefix.bin.nvcc}")
        return variables

    @property
    def build_targets(self):
        return [*self.make_variables(), "all"]

    @property
    def install_targets(self):
        return [*self.make_variables(), f"PREFIX={self.prefix}", "install"]

    def test_keys(self):
        """The installed program starts and names the keys of a job."""
        said = which(self.prefix.bin.moerun, required=True)("help", "keys", output=str.split, error=str.split)
        assert "parallel.tensor" in said
