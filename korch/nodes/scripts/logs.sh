# Words: CONTAINER LINES. Every line with a ">" before it, so that none can be taken for a mark.
korch_out=$("$korch_engine" logs --tail "$2" "$1" 2>&1 </dev/null) && echo '@korch log' || echo '@korch failed 1'
printf '%s\n' "$korch_out" | while IFS= read -r korch_line; do printf '>%s\n' "$korch_line"; done
echo '@korch end'
