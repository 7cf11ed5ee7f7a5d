"""Counts the tests in a step's log: cargo test, go test -json, or a line
"N passed, N failed". A test that ran again counts by its last run. With
--failures it prints what is worth reading of a failed step instead, and with
--again a pattern of the Go tests that failed, if they are few."""

import json
import re
import sys

TAIL = 60
FEW = 3


class Log:
    """What a step's log tells."""

    def __init__(self, path):
        self.passed, self.failed, self.lines = 0, 0, []
        self.go, self.output, self.panicked = {}, {}, False
        for line in open(path, errors='replace'):
            if line.startswith('{"Time"') or line.startswith('{"ImportPath"'):
                self.go_event(json.loads(line))
            else:
                self.line(line)
        self.passed += sum(ok for name, ok in self.go.items() if name)
        self.failed += sum(not ok for name, ok in self.go.items() if name)

    def go_event(self, event):
        name, action = event.get('Test'), event['Action']
        if action in ('output', 'build-output'):
            self.output.setdefault(name, []).append(event['Output'])
            self.panicked = self.panicked or event['Output'].startswith('panic: ')
        elif action == 'pass':
            self.go[name] = True
        elif action == 'fail':
            if name or not any(self.go.get(test) is False for test in self.go):
                self.lines += self.output.pop(name, [])[-TAIL:]
            self.go[name] = False

    def line(self, line):
        self.lines.append(line)
        found = re.match(r'test result: \w+\. (\d+) passed; (\d+) failed', line) \
            or re.fullmatch(r'(\d+) passed, (\d+) failed\s*', line)
        if found:
            self.passed += int(found[1])
            self.failed += int(found[2])

    def again(self):
        """The tests that failed, for -run; nothing if they are many, or if something ended all of them."""
        tests = sorted(name for name, ok in self.go.items() if name and not ok and '/' not in name)
        return '^(%s)$' % '|'.join(tests) if 0 < len(tests) <= FEW and not self.panicked else ''


def main():
    log = Log(sys.argv[-1])
    if sys.argv[1] == '--failures':
        sys.stdout.writelines('   ' + line.rstrip('\n')[:2000] + '\n' for line in log.lines[-400:])
    elif sys.argv[1] == '--again':
        print(log.again())
    else:
        print(log.passed, log.failed)


main()
