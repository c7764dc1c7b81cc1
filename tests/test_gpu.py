"GPUs: read through NVIDIA's own binding, from a driver that is scripted in C."

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import dataclasses, json
from docstral.gpu import Gpus
print(json.dumps([dataclasses.asdict(device) for device in Gpus()()]))
"""

DRIVER = r"""
#include <string.h>
#define OK 0
#define NOT_SUPPORTED 3
typedef struct { unsigned int gpu, memory; } rates;
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInitWithFlags(unsigned int flags) { return OK; }
int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = (void *)(long)(index + 1); return OK;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned int size) { strncpy(name, "Scripted GPU", size); return OK; }
int nvmlDeviceGetMemoryInfo(void *handle, memory *info) {
    info->total = 80ULL << 30; info->used = 20ULL << 30; info->free = 60ULL << 30; return OK;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates *found) {
    if (handle == (void *)2) return NOT_SUPPORTED;
    found->gpu = 75; found->memory = 10; return OK;
}
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *celsius) { *celsius = 64; return OK; }
int nvmlDeviceGetPowerUsage(void *handle, unsigned int *milliwatts) {
    if (handle == (void *)2) return NOT_SUPPORTED;
    *milliwatts = 312500; return OK;
}
"""


def read(environment: dict[str, str]) -> list[dict[str, object]]:
    "What a fresh process sees of the GPUs."
    ran = subprocess.run(
        [sys.executable, "-c", READ], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return list(json.loads(ran.stdout))


def test_figures_come_from_the_driver_and_missing_ones_stay_missing(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler to make the scripted driver with")
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, tmp_path / "driver.c"], check=True)
    whole, partial = read({"LD_LIBRARY_PATH": str(tmp_path)})
    assert whole == {
        "index": 0,
        "name": "Scripted GPU",
        "utilization": 0.75,
        "memory_used": 20 << 30,
        "memory_total": 80 << 30,
        "temperature": 64,
        "power": 312.5,
    }
    assert (partial["utilization"], partial["power"], partial["temperature"]) == (None, None, 64)


def test_without_a_driver_there_are_none() -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    assert read({}) == []
