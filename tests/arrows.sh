#!/usr/bin/env bash
# Proves the arrows of docs/architecture.md: which crate may depend on which, and what the sources
# of a layer may name. Needs nothing but cargo, and no build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

findings=0
finding() {
    echo "arrows: $*" >&2
    findings=$((findings + 1))
}

# Asked per folder, not with -p: a name such as `console` is not ours alone.
tree() {
    local folder=$1
    shift
    (cd "$folder" && cargo tree --locked --prefix none --format '{p}' "$@") | awk 'NR > 1 { print $1 }' | sort -u
}

# depends_on FOLDER REGEX WHY [TREE ARGUMENTS…]: a finding for each dependency whose whole name matches.
# The tree has a line of its own, so that a cargo that fails ends the script: no tree is no proof.
depends_on() {
    local folder=$1 forbidden=$2 why=$3 all name
    all=$(tree "$folder" "${@:4}")
    for name in $(grep -Ex "$forbidden" <<<"$all" || true); do
        finding "$folder depends on $name: $why"
    done
}

# only_depends_on FOLDER REGEX: a finding for each direct dependency that does not match.
only_depends_on() {
    local all name
    all=$(tree "$1" -e normal --depth 1)
    for name in $(grep -Evx "$2" <<<"$all" || true); do
        finding "$1 depends on $name, which is not in its list in tests/arrows.sh"
    done
}

# names FOLDER REGEX WHY: a finding for each line of non-test code that matches. Tests are the files
# named for it and what follows a `#[cfg(test)]` that opens a module; comments are not code.
names() {
    local folder=$1 forbidden=$2 why=$3 file lines
    [[ -d $folder/src ]] || finding "$folder/src is not there"
    while IFS= read -r file; do
        lines=$(awk '
            /^#\[cfg\(test\)\]/ { held = 1; next }
            held && /^(pub )?mod [a-z_]+ \{/ { exit }
            { held = 0; sub(/\/\/.*/, ""); print FNR ": " $0 }' "$file" | grep -E "$forbidden" || true)
        [[ -z $lines ]] || finding "$file: $why"$'\n'"$lines"
    done < <(find "$folder" -path '*/src/*' -name '*.rs' ! -name '*tests.rs' ! -path '*/tests/*' | sort)
}

crates='vault-format|vault-store|virtual-disk|guest-inspection|console|recovery-plan|recovery-cloud|gateway|cloud-restore'
programs='gateway|cloud-restore'
# Threads are not among them: Argon2id's lanes run on rayon's.
io='tokio|futures.*|mio|hyper.*|reqwest|object_store|aws-.*|rustls|redb|rand|rustix|tempfile|notify|walkdir'

# The layers: normal dependencies, whole closure.
depends_on vault/format "$crates" "the format is the lowest layer" -e normal
depends_on vault/format "$io" "the format does no I/O, reads no clock, draws no randomness" -e normal
depends_on vault/store "virtual-disk|guest-inspection|console|$programs" "the store is below them" -e normal
depends_on disk "$crates|object_store|aws-.*|azure_.*|reqwest" "a disk knows neither vault nor cloud" -e normal
depends_on guest "vault-format|vault-store|console|$programs|object_store|aws-.*|azure_.*|reqwest" \
    "what reads a guest knows neither vault nor cloud" -e normal
depends_on gateway cloud-restore "the programs meet in the vault only" -e normal,build,dev
depends_on cloud-restore gateway "the programs meet in the vault only" -e normal,build,dev
for name in vault-format vault-store virtual-disk guest-inspection; do
    depends_on console "$name" "the console prints; it knows no vault and no disk" -e normal
done
depends_on recovery-plan "vault-store|virtual-disk|guest-inspection|$programs" "a plan is decided without the vault at hand" -e normal
for name in vault/format vault/store disk guest console gateway; do
    depends_on "$name" recovery-plan "only cloud-restore plans" -e normal
done
depends_on cloud "vault-format|vault-store|virtual-disk|guest-inspection|console|recovery-plan|$programs|object_store" \
    "what speaks to a cloud knows neither vault nor plan" -e normal
for name in vault/format vault/store disk guest console recovery-plan gateway; do
    depends_on "$name" recovery-cloud "only cloud-restore makes things in a cloud" -e normal
done
for folder in vault/format vault/store disk guest console recovery-plan cloud gateway cloud-restore; do
    depends_on "$folder" 'testkit|journeys|bench|fuzz' "tests are above everything" -e normal
done

# What a layer names itself: direct dependencies.
only_depends_on recovery-plan 'console|vault-format|ipnet|jiff|serde|thiserror|toml'
only_depends_on vault/format 'serde|serde_json|blake3|ring|zstd|hpke|argon2|zeroize|base64|hex|qrcodegen|bip39|thiserror'
for folder in disk guest console recovery-plan gateway cloud-restore; do
    depends_on "$folder" 'aws-sdk-.*|aws-sigv4|azure_.*' "only recovery-cloud imports what speaks to a compute cloud" -e normal --depth 1
done
for folder in vault/format disk guest console recovery-plan cloud gateway cloud-restore; do
    depends_on "$folder" object_store "only vault-store speaks to object storage" -e normal --depth 1
done

# The whole graph, every target: one TLS stack, and nothing that needs a C library or cmake.
depends_on . 'aws-lc-.*|openssl|openssl-sys|native-tls' "ring is the only crypto provider" \
    --workspace -e normal,build,dev --target all

# The sources.
names vault/format 'std::(fs|net|process|env|thread)|SystemTime|Instant|SystemRandom|thread_rng|OsRng|getrandom|[^_]rand::' \
    "the format is pure: files, clocks, randomness and processes are its callers'"
names recovery-plan 'std::(fs|process|env|thread|time)|net::(Tcp|Udp)|Timestamp::now|tokio|SystemTime|Instant::|[^_]rand::' \
    "a plan is decided purely: files, clocks and networks are its callers'"
for folder in disk guest console recovery-plan cloud gateway cloud-restore; do
    names "$folder" 'object_store::' "only vault-store imports object_store"
done

[[ $findings -eq 0 ]] || { echo "arrows: $findings findings" >&2; exit 1; }
echo "arrows: all hold"
