from .conformers import Sampled as Sampled
from .conformers import sample as sample
from .labels_of_pools import Labelled as Labelled
from .labels_of_pools import label as label
from .requests import LabelRequest as LabelRequest
from .requests import SampleRequest as SampleRequest
