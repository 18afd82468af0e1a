#!/usr/bin/env bash
# Whether a build of the run-time loads with another wheel of the same torch, on CPUs or with CUDA: every symbol that it
# takes from torch is in that wheel's libtorch_cpu or libc10, and it asks for no library of CUDA.
#   check_symbols.sh LIBRARY TORCH     TORCH: the folder of the torch package, or a wheel of it
set -euo pipefail
library=$1 torch=$2
if [ -f "$torch" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  unzip -q "$torch" 'torch/lib/libtorch_cpu.so' 'torch/lib/libc10.so' -d "$folder"
  torch=$folder/torch
fi

needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
if cuda=$(grep -E 'cuda|nccl|cudnn' <<<"$needed"); then
  echo "check_symbols: $library needs $(paste -sd' ' <<<"$cuda"), which a wheel for CPUs lacks" >&2
  exit 1
fi

# Names of at, c10, c10d, torch and caffe2, as they are mangled; versions of symbols are left out, and weak ones, which
# may be missing.
wanted=$(nm -D --undefined-only "$library" | awk '$(NF - 1) == "U" { print $NF }' | sed 's/@.*//' |
  grep -E '^_Z[A-Z]*N?K?[A-Z]*(2at|3c10|4c10d|5torch|6caffe2)' | sort -u)
there=$(nm -D --defined-only "$torch"/lib/libtorch_cpu.so "$torch"/lib/libc10.so | awk 'NF == 3 { print $3 }' |
  sed 's/@.*//' | sort -u)
if missing=$(comm -23 <(echo "$wanted") <(echo "$there")) && [ -n "$missing" ]; then
  echo "check_symbols: $torch lacks $(wc -l <<<"$missing") of the $(wc -l <<<"$wanted") symbols, first:" >&2
  head -5 <<<"$missing" | c++filt >&2
  exit 1
fi
echo "check_symbols: all $(wc -l <<<"$wanted") symbols are in $torch"
