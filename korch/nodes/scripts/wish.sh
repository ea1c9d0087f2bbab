# Words: EPOCH SHARED CLAIM FILE LENGTH. The wish comes on stdin as one line of base64, a dot ends its text;
# LENGTH 0 removes the file.
korch_word=
[ "$5" = 0 ] || read -r korch_word
korch_whole "$5" "$korch_word"
korch_enter "$1" "$2" "$3"
if [ "$5" = 0 ]; then
    rm -f "$korch_dir/wishes/$4"
else
    korch_write_record "$4" "$korch_word"
fi
korch_unlock
echo '@korch done'
