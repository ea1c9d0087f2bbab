# Beginning of every script. Words: CLUSTER-ID STATE-ROOT("" = by user) ENGINE, then the script's own.
# What a login shell or a banner printed before "@korch begin" is no part of the answer.
umask 077
LC_ALL=C
export LC_ALL
korch_cluster=$1 korch_root=$2 korch_engine=$3
shift 3
korch_user=$(id -u)
if [ -z "$korch_root" ]; then
    if [ "$korch_user" = 0 ]; then
        korch_root=/var/lib/korch
    else
        korch_root=${HOME:-/nonexistent}/.local/state/korch
    fi
fi
korch_dir=$korch_root/$korch_cluster
korch_ticket= korch_tmp=
trap '[ -z "$korch_ticket$korch_tmp" ] || rm -rf "$korch_ticket" "$korch_tmp"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP
echo '@korch begin'

# korch_refuse CODE WORD TEXT...: end with a reason that the master can read.
korch_refuse() {
    korch_code=$1
    shift
    echo "@korch refuse $*"
    exit "$korch_code"
}

# korch_decode BASE64: the text; its last character is a dot that keeps newlines at the end, the caller cuts it off.
korch_decode() {
    printf %s "$1" | base64 -d
}

# korch_whole LENGTH WORD: true unless the input was cut on its way.
korch_whole() {
    [ "${#2}" = "$1" ] || korch_refuse 79 input "a value arrived with ${#2} of $1 characters"
}
