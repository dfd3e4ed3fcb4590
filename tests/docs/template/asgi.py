"""An application for the pages that show none: a group for each path.

The query string is the user's id.
"""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django_application = get_asgi_application()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter  # noqa: E402

from channels_groups.consumers import AsyncGroupConsumerMixin  # noqa: E402


class Consumer(AsyncGroupConsumerMixin, AsyncWebsocketConsumer):
    async def connect(self):
        await self.set_group(self.scope["path"].strip("/"))
        await self.accept()
        await self.send(str(await self.group.acount()))

    def get_group_user_id(self):
        return self.scope["query_string"].decode() or None

    async def receive(self, text_data=None, bytes_data=None):
        await self.group.asend(text_data)


application = ProtocolTypeRouter(
    {"http": django_application, "websocket": Consumer.as_asgi()}
)
