"""Upper bounds: what fine-tuning reaches when nothing has to be forgotten.

`joint` is the same federation, in which every twin keeps all images that it ever had. `oracle` is
one node that has the images of all classes, and makes as many image-steps as the federation
(docs/method.md 7).
"""

from dataclasses import replace

from learning.strategies.fedavg import FEDAVG

JOINT = replace(FEDAVG, name="joint", memory="everything")
ORACLE = replace(JOINT, name="oracle", pooled=True)
