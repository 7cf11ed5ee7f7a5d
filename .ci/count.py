"""Counts the tests in a step's log: cargo test, go test -json, or a line
"N passed, N failed". With --failures it prints what is worth reading of a
failed step instead."""

import json
import re
import sys

TAIL = 60


def read(path):
    """Gives the tests passed and failed, and the lines that tell of failures."""
    passed, failed, output, lines = 0, 0, {}, []
    for line in open(path, errors='replace'):
        if line.startswith('{"Time"') or line.startswith('{"ImportPath"'):
            event = json.loads(line)
            name = event.get('Test')
            if event['Action'] in ('output', 'build-output'):
                output.setdefault(name, []).append(event['Output'])
            elif event['Action'] == 'pass' and name:
                passed += 1
            elif event['Action'] == 'fail' and name:
                failed += 1
                lines += output.get(name, [])[-TAIL:]
            elif event['Action'] == 'fail' and not lines:
                lines += output.get(None, [])[-TAIL:]
            continue
        lines.append(line)
        found = re.match(r'test result: \w+\. (\d+) passed; (\d+) failed', line) \
            or re.fullmatch(r'(\d+) passed, (\d+) failed\s*', line)
        if found:
            passed += int(found[1])
            failed += int(found[2])
    return passed, failed, lines


def main():
    passed, failed, lines = read(sys.argv[-1])
    if sys.argv[1] == '--failures':
        sys.stdout.writelines('   ' + line.rstrip('\n')[:2000] + '\n' for line in lines[-400:])
    else:
        print(passed, failed)


main()
