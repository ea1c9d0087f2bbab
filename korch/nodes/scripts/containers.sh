# Words: TEMPLATE
korch_out=$(korch_look_containers "$1")
korch_code=$?
echo "@korch look $korch_code"
printf '%s\n' "$korch_out"
echo '@korch clock'
date +%s.%N
echo '@korch end'
