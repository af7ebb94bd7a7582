"""The only door to the network: JSON calls and blobs to a coordinator, retried until they are answered."""

from shared.transport.client import Params as Params
from shared.transport.client import Transport as Transport
from shared.transport.opening import AsgiApp as AsgiApp
from shared.transport.opening import BaseUrl as BaseUrl
from shared.transport.opening import WithoutSocket as WithoutSocket
from shared.transport.opening import open_in_process as open_in_process
from shared.transport.opening import open_transport as open_transport
from shared.transport.retries import NO_PATIENCE as NO_PATIENCE
from shared.transport.retries import OnRetry as OnRetry
from shared.transport.retries import tell_nobody as tell_nobody
