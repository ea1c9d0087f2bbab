# Words: EPOCH SHARED CLAIM UID. The volumes of files of a pod come on stdin, as for start.sh:
#   files NAME:VERSION LENGTH -       a volume; the files after it are in it
#   data MODE:PATH LENGTH BASE64      a file of it; PATH is base64, a dot ends it
#   end
# A pod without such a folder is none that was started here: nothing is made for it.
korch_input=
while read -r korch_input korch_key korch_length korch_word; do
    [ "$korch_input" != end ] || break
    korch_whole "$korch_length" "$korch_word"
    korch_note_files "$korch_input" "$korch_key" "$korch_word"
done
[ "$korch_input" = end ] || korch_refuse 79 input "the values did not arrive whole"
korch_enter "$1" "$2" "$3"
if [ -d "$korch_dir/volumes/$4" ]; then
    korch_place "$4" || korch_refuse 78 state "cannot write below $korch_dir/volumes: is the disk full?"
fi
korch_unlock
echo '@korch done'
