#!/bin/sh
# Makes the secrets compose.yaml reads, once: secrets/ beside this file, readable by whoever runs it. What is there stays as it is.
# The containers read them as users of their own, so the files are readable by all and the folder by its owner alone.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

[ -e secrets/api_keys ] || { printf '%s\n' "$(random)" > secrets/api_keys && echo "the first API key: $(cat secrets/api_keys)"; }
[ -e secrets/grafana_password ] || { random > secrets/grafana_password && echo "Grafana: admin, $(cat secrets/grafana_password)"; }
[ -e secrets/postgres_password ] || random > secrets/postgres_password
[ -e secrets/database_url ] ||
    printf 'postgresql://gateway:%s@postgres:5432/gateway' "$(cat secrets/postgres_password)" > secrets/database_url
chmod 644 secrets/*
