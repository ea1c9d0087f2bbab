# Words: LIST-TEMPLATE. What korch brought, what the machine holds, what its containers (all of them) use.
echo '@korch brought'
[ ! -f "$korch_dir/images" ] || cat "$korch_dir/images"
echo '@korch used'
korch_ids=$("$korch_engine" ps -a -q --no-trunc 2>&1 </dev/null) || {
    echo '@korch failed 1'
    printf '%s\n' "$korch_ids"
    echo '@korch end'
    exit 0
}
[ -z "$korch_ids" ] || "$korch_engine" inspect --type container --format '{{.Image}}' $korch_ids 2>/dev/null </dev/null
echo '@korch images'
"$korch_engine" images --no-trunc --digests --format "$1" </dev/null
echo '@korch end'
