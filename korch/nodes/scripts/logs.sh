# Words: CONTAINER LINES. Every line with a ">" before it, so that none can be taken for a mark.
# Podman 4's own --tail shuffles lines that were written in pieces; its logs are short enough to be read whole.
if [ "$korch_engine" = podman ]; then
    korch_out=$(podman logs "$1" 2>&1 </dev/null) && korch_word=log || korch_word='failed 1'
    korch_out=$(printf '%s\n' "$korch_out" | tail -n "$2")
else
    korch_out=$("$korch_engine" logs --tail "$2" "$1" 2>&1 </dev/null) && korch_word=log || korch_word='failed 1'
fi
echo "@korch $korch_word"
printf '%s\n' "$korch_out" | while IFS= read -r korch_line; do printf '>%s\n' "$korch_line"; done
echo '@korch end'
