"""Profiles: named sets of environment rules, as data."""

from __future__ import annotations

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of software needs on its ranks.

    Attributes:
        name: What `profiles = [...]` calls it.
        passes: Beginnings of the names that are passed automatically.
        blocks: Names, or patterns with `*`, that are not passed automatically though a beginning matches.
        defaults: With a rank binding, what these variables are where the shell has nothing to pass; `{cwd}` is the
            working directory.
    """

    name: str
    passes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()


BASE: Final = Profile(
    "built-in",
    # Switches of the interpreter and of output that a person sets for the whole run.
    passes=(
        "PYTHONASYNCIODEBUG",
        "PYTHONDEVMODE",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONFAULTHANDLER",
        "PYTHONHASHSEED",
        "PYTHONIOENCODING",
        "PYTHONMALLOC",
        "PYTHONNODEBUGRANGES",
        "PYTHONOPTIMIZE",
        "PYTHONTRACEMALLOC",
        "PYTHONUNBUFFERED",
        "PYTHONUTF8",
    ),
)

PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            "tenstorrent",
            passes=("TT_", "ARCH_", "WH_", "TTNN_", "DEEPSEEK_", "MESH_"),
            blocks=(
                "TT_MESH_ID",
                "TT_MESH_HOST_RANK",
                "TT_MESH_GRAPH_DESC_PATH",
                "TT_RUN_ORIGINAL_CWD",
                "TT_METAL_MOCK_CLUSTER_DESC_PATH",
                "TT_VISIBLE_DEVICES",
            ),
            defaults=(
                ("TT_METAL_HOME", "{cwd}"),
                ("TT_METAL_RUNTIME_ROOT", "{TT_METAL_HOME}"),
                ("PYTHONPATH", "{cwd}"),
                ("LD_LIBRARY_PATH", "{cwd}/build/lib"),
                ("TT_RUN_ORIGINAL_CWD", "{cwd}"),
            ),
        ),
        Profile(
            "torch",
            passes=(
                "NCCL_",
                "RCCL_",
                "GLOO_",
                "TORCH_",
                "TORCHINDUCTOR_",
                "TORCHDYNAMO_",
                "PYTORCH_",
                "TRITON_",
                "CUDA_",
                "CUDNN_",
                "CUBLAS_",
                "HSA_",
                "MIOPEN_",
                "HF_",
                "HUGGINGFACE_",
                "TRANSFORMERS_",
                "TOKENIZERS_",
            ),
            # The pipes of one host's MPS daemon are of no use on another.
            blocks=("CUDA_MPS_*",),
        ),
        Profile(
            "mpi",
            # Not OMPI_, PMIX_, I_MPI_ and their kind: those the launcher gives to each rank (special.LAUNCHER_OWNED).
            passes=(
                "UCX_",
                "UCC_",
                "FI_",
                "OMP_",
                "GOMP_",
                "KMP_",
                "MKL_",
                "OPENBLAS_",
                "BLIS_",
                "NUMEXPR_",
                "MPI4PY_",
            ),
        ),
        Profile(
            "ci",
            blocks=(
                "CI",
                "CI_*",
                "HOSTNAME",
                "GITHUB_*",
                "RUNNER_*",
                "ACTIONS_*",
                "GITLAB_*",
                "GITEA_*",
                "JENKINS_*",
                "HUDSON_*",
                "BUILDKITE",
                "BUILDKITE_*",
                "CIRCLECI",
                "CIRCLE_*",
                "TRAVIS",
                "TRAVIS_*",
                "BITBUCKET_*",
                "DRONE",
                "DRONE_*",
                "TEAMCITY_*",
                "TF_BUILD",
                "SYSTEM_ACCESSTOKEN",
            ),
        ),
    )
}
