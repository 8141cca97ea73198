#!/bin/sh
# The first job of the demo: says where it runs.
echo "hello from $RK_AGENT_NAME, job $RK_JOB_NAME"
uname -srm
