#!/bin/sh
# Makes an authority, and certificates of brokers and clients, in one folder. What is there stays: it may be run again.
# README.md beside it describes the options and the files.
set -eu

rk=${RK:-rk}
folder=certs

usage() {
    echo "usage: make.sh [-d DIR] [-b NAME[=HOST,...]]... [-c NAME]..." >&2
    exit 64
}

authority() {
    [ -e "$folder/ca.pem" ] || "$rk" certs init --out "$folder"
}

# Key and certificate in one file, as Kafka wants them.
keystore() {
    store=$folder/$1.keystore.pem
    if [ ! -e "$store" ] || [ -n "$(find "$folder/$1.pem" -newer "$store")" ]; then
        (umask 077 && cat "$folder/$1.key" "$folder/$1.pem" >"$store.new")
        mv "$store.new" "$store"
    fi
}

broker() {
    name=${1%%=*}
    hosts=${1#*=}
    [ -e "$folder/$name.pem" ] || "$rk" certs broker "$name" --san "$hosts" --out "$folder"
    keystore "$name"
}

client() {
    [ -e "$folder/$1.pem" ] || "$rk" certs client "$1" --out "$folder"
}

# All is read before anything is made.
read_options() {
    wanted=
    while getopts d:b:c: option; do
        case $option in
        d) folder=$OPTARG ;;
        b | c) wanted=yes ;;
        *) usage ;;
        esac
    done
    shift $((OPTIND - 1))
    if [ $# -gt 0 ] || [ -z "$wanted" ]; then
        usage
    fi
}

read_options "$@"
authority
OPTIND=1
while getopts d:b:c: option; do
    case $option in
    b) broker "$OPTARG" ;;
    c) client "$OPTARG" ;;
    esac
done
