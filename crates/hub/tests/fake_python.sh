#!/bin/sh
# Stands for a Python whose pip answers with the report that lies beside the name it was called by.
while [ "$1" != --report ]; do shift; done
cp "$(dirname "$0")/report.json" "$2"
