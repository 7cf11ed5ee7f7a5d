"""Sorts the tests of a JUnit report: names of those that passed, names of those that failed."""

import sys
import xml.etree.ElementTree as ElementTree

report, passed, failed = sys.argv[1:]
good, bad = set(), set()
for case in ElementTree.parse(report).iter('testcase'):
    name = (case.get('classname') + '.' + case.get('name')).replace(' ', '_')
    if case.find('failure') is not None or case.find('error') is not None:
        bad.add(name)
    elif case.find('skipped') is None:
        good.add(name)
# A test whose clean-up failed is listed twice; it failed.
for path, names in ((passed, good - bad), (failed, bad)):
    with open(path, 'w') as out:
        out.writelines(name + '\n' for name in sorted(names))
