# TorchServe in the foreground, on the archive in $BENCHMARK_SCRATCH. Addresses come as TS_* variables.
set -eu
cd "$BENCHMARK_SCRATCH"
echo enable_envvars_config=true > config.properties
export LOG_LOCATION="$BENCHMARK_SCRATCH/logs" METRICS_LOCATION="$BENCHMARK_SCRATCH/logs"
exec torchserve --start --foreground --ncs --disable-token-auth \
  --model-store . --models "$1=$1.mar" --ts-config config.properties
