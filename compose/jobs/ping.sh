#!/bin/sh
# The second job of the demo: a line a second, which `rk logs -f` shows as they come.
for n in 1 2 3 4 5; do
  echo "ping $n"
  sleep 1
done
