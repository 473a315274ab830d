from .forces_figure import draw_forces as draw_forces
from .learning import draw_learning_curves as draw_learning_curves
from .model_graph import draw_model_graph as draw_model_graph
from .parity import draw_parity as draw_parity
from .results import Selection as Selection
from .results import read_results as read_results
from .spread import draw_spread as draw_spread
