"""Environment variables that decide how fast or how exactly a backend computes: no worker inherits one unsaid.

They choose kernels, instruction sets, threads, precision, compilation or allocators. Workers start without them, unless
one is kept by its name. What was there and what was kept is in the record of every block.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple


class Family(NamedTuple):
    """Variables that one library reads.

    Attributes:
        names: a regular expression that matches their whole names.
        decides: what they choose.
        source: the library or document that says so.
    """

    names: str
    decides: str
    source: str


FOR_ALL: Final = (
    Family("(OPENBLAS|GOTO)_.*", "kernels, block sizes, threads", "OpenBLAS, USAGE.md and driver/others/parameter.c"),
    Family("(MKL|ONEDNN|DNNL|MKLDNN)_.*", "instruction sets, threads", "oneMKL and oneDNN developer guides"),
    Family("(BLIS|FLEXIBLAS|VECLIB)_?.*", "kernels, threads", "BLIS docs/Multithreading.md, FlexiBLAS, Accelerate"),
    Family("NPY_.*", "instruction sets", "NumPy reference, CPU build options"),
    Family("(OMP|GOMP|KMP|LIBOMP)_.*", "threads and how they wait", "OpenMP 5.2 chapter 21, libgomp and LLVM manuals"),
    Family("NPROC|(LOKY|JOBLIB)_.*", "threads", "XLA tsl/platform/default/port.cc, joblib"),
    Family("MALLOC_.*|GLIBC_TUNABLES", "allocator, instruction sets", "mallopt(3), the GNU C Library manual"),
    Family("(JEMALLOC|TCMALLOC|MIMALLOC)_.*", "allocator", "the allocators' manuals"),
    Family("LD_(PRELOAD|AUDIT|BIND_NOW)|DYLD_INSERT_LIBRARIES", "any function of any library", "ld.so(8), dyld(1)"),
    Family(
        "PYTHON(OPTIMIZE|HASHSEED|MALLOC|MALLOCSTATS|DEVMODE|TRACEMALLOC|PROFILEIMPORTTIME|DONTWRITEBYTECODE|WARNINGS"
        "|NODEBUGRANGES|PERFSUPPORT|_GIL|_JIT|_CPU_COUNT|_COLORS|_PERF_JIT_SUPPORT|_TLBC|ASYNCIODEBUG|VERBOSE|DEBUG)",
        "allocator, checks, compilation",
        "Python, command line and environment",
    ),
)
"""What any process reads, the reference's and the floor's among them."""
FOR_FRAMEWORKS: Final = (
    Family("NUMEXPR_.*", "threads", "NumExpr user guide"),
    Family("ATEN_.*", "instruction sets", "PyTorch aten/src/ATEN/native/DispatchStub.cpp"),
    Family("(XLA|JAX|JAXLIB|PJRT|LIBTPU)_.*", "compilation, precision, devices", "XLA and JAX configuration"),
    Family(
        "TF_(?!CLI_|VAR_|LOG|PLUGIN_CACHE_DIR|DATA_DIR|WORKSPACE|INPUT|IN_AUTOMATION|TOKEN_|REGISTRY_).*",
        "kernels, threads, compilation",
        "TensorFlow, its readers of environment variables; Terraform's are left out",
    ),
    Family("KERAS_(?!HOME$).*", "engine", "Keras keras/src/backend/config.py"),
    Family(
        "(TORCH(?!_HOME$)|TORCHINDUCTOR|TORCHDYNAMO|PYTORCH|TRITON|INDUCTOR)_.*",
        "compilation, allocators, precision",
        "PyTorch environment variables and torch/_inductor/config.py",
    ),
    Family("NUMBA_.*", "compilation, threads", "Numba reference, environment variables"),
    Family("(FLAGS|GLOG|CINN)_.*", "kernels, allocators, logging", "PaddlePaddle paddle/common/flags.cc"),
    Family("(MLX|METAL)_.*", "compilation", "MLX mlx/utils.h"),
    Family("SKLEARN_.*", "checks, working memory", "scikit-learn configuration"),
    Family(
        "CUDA_(?!HOME$|PATH$|ROOT|VERSION$|TOOLKIT|VISIBLE_DEVICES$|DEVICE_ORDER$).*|NVIDIA_TF32_OVERRIDE",
        "launches, precision",
        "CUDA C++ programming guide, cuBLAS",
    ),
    Family("(CUBLAS|CUBLASLT|CUDNN|NCCL|MIOPEN|HSA|ROCBLAS)_.*", "kernels", "cuBLAS, cuDNN, NCCL and ROCm manuals"),
    Family("CC|CXX|CPP|(C|CXX|CPP|LD)FLAGS", "compilers of generated code", "PyTorch Inductor, tinygrad"),
    Family(
        "ALIGNED|ALL2ALL|ALLOW_(DEVICE_USAGE|HALF8|TF32)|ALLREDUCE_CAST|AMD_.*|AM_.*|ASSERT_COMPILE"
        "|ASYNC_COPY_WORKERS|(JIT)?BEAM(_.*)?|BENCHMARK_LOG|CACHEDB|CACHELEVEL|CAPTURE_PROCESS_REPLAY|CAPTURING|CCACHE"
        "|CHECK_OOB|CONST_LR|DEBUG(ONNX|_GC|_LINEARIZE|_RANGEIFY)?|DEFAULT_(FLOAT|INT)|DEV|DEVICE_IN_FUNCTION_BUG"
        "|DISABLE_(FAST_IDIV|HTTP_CACHE)|DISALLOW_BROADCAST|DMC|EMULATED?(_DTYPES)?|EXPAND_SSA|FIX_METAL_ICB|FLOAT16"
        "|FUSE_OPTIM|GMMU|GRAPH_ONE_KERNEL|HALF|HCQ.*|IGNORE_(BEAM_CACHE|JIT_FIRST_BEAM)|IMAGE|IOCTL|JIT(_BATCH_SIZE)?"
        "|LATE_ALLREDUCE|LLVMOPT|LRU|MAX_(BUFFER_SIZE|KERNEL_BUFFERS|SQTT_PKTS)|MM_DEBUG|MOCKDSP"
        "|MV(_(BLOCKSIZE|ROWS_PER_THREAD|THREADS_PER_ROW))?|NOLOCALS|NOOPT|NOSKIP|NO_(COLOR|HIPCC|MEMORY_PLANNER)"
        "|NULL_ALLOW_COPYOUT|NUM_CPU_THREADS|NV_DEBUG|OCCUPANCY_FLOOR|ONNXLIMIT|OPENPILOT_HACKS|OPTIM_DTYPE|PARALLEL"
        "|PCONTIG|PMA(_BUFFER_SIZE)?|PMC(_COUNTERS)?|PRINT_MATCH_STATS|PROFILE(_DATA)?|QCOM_PRIORITY|REALIZE|REGEN"
        "|REDUCEOP_SPLIT_(SIZE|THRESHOLD)|REWRITE_(DATA|STACK_LIMIT)|RING(_ALLREDUCE_THRESHOLD)?|SCACHE|SPEC"
        "|SPLIT_REDUCEOP|SQTT(_.*)?|SUM_DTYPE|TC(_(OPT|SELECT))?|TEST_PICKLE|THREADS|TRACE(META)?|TRACK_MATCH_STATS"
        "|TRAINING|TRANSCENDENTAL|TUPLE_ORDER|TYPED|UNSAFE_ALLOW_JIT_BUFFER|UPAT_COMPILE|USE_ATOMICS|VALIDATE_WITH_CPU"
        "|VFIO|VIZ|WAVES_PER_SH|WEBGPU_BACKEND|WINO",
        "kernels, precision, search, output",
        "tinygrad 0.13.0, every getenv and ContextVar",
    ),
)
"""What single frameworks and what they rest on read; tinygrad's names have no prefix."""
CHOOSE_DEVICES: Final = re.compile("(CUDA|NVIDIA|HIP|ROCR)_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|GPU_DEVICE_ORDINAL")
"""They say which device is the user's, as an affinity says which CPU: always kept, and recorded."""


THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "PJRT_NPROC",  # XLA's CPU client, so JAX's
    "NPROC",
)
"""Every worker has these, with the number of threads that was asked for."""
SET_BY_IMPORT: Final = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
"""threadpoolctl and scikit-learn set these in the process that imports them: nobody chose them."""


def _matching(*families: Family) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{family.names})" for family in families))


_FOR_ALL, _ANY = _matching(*FOR_ALL), _matching(*FOR_ALL, *FOR_FRAMEWORKS)
_FOLDERS: Final = re.compile(r"(?:[^\s=:,;\"']*/)+")


class Inherited(NamedTuple):
    """What was there of deciding variables: those that workers start without, and those that they have; name: value."""

    removed: dict[str, str]
    kept: dict[str, str]


def decides(name: str) -> bool:
    """Return whether a variable of this name is on the list."""
    return _ANY.fullmatch(name) is not None


def decides_for_all(name: str) -> bool:
    """Return whether it bears on any process, and so on the reference."""
    return _FOR_ALL.fullmatch(name) is not None


def inherited(environment: Mapping[str, str], keep: Collection[str] = ()) -> Inherited:
    """Return which deciding variables of an environment are removed, and which are kept because `keep` has their names.

    Those that choose a device are always kept.
    """
    there = {
        name: value
        for name, value in sorted(environment.items())
        if decides(name) or name in keep or CHOOSE_DEVICES.fullmatch(name)
    }
    kept = {name: value for name, value in there.items() if name in keep or CHOOSE_DEVICES.fullmatch(name)}
    return Inherited({name: value for name, value in there.items() if name not in kept}, kept)


def recordable(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables as a record has them: of a path only the last part, for the rest is nobody's business."""
    return {name: _FOLDERS.sub("", value.rstrip("/")) for name, value in variables.items()}


def deciding(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the deciding variables of an environment, and those that choose a device, as a record has them."""
    return recordable({name: value for part in inherited(environment) for name, value in part.items()})


def recorded_variables(keep: Collection[str] = ()) -> Inherited:
    """Return what of this process's environment workers lack and inherit, as a record has it."""
    removed, kept = (recordable(part) for part in inherited(os.environ, keep))
    return Inherited(removed, kept)


@contextmanager
def environment_without(names: Iterable[str] = ()) -> Iterator[None]:
    """Within it this process's environment lacks these variables; then it is as before, whatever was set within."""
    before = dict(os.environ)
    for name in names:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})
